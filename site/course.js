// What folds a part of the sidebar answers the keyboard as a button does.
document.addEventListener("keydown", (e) => {
  if (!e.target.matches("a[role=button]:not([href])")) return;
  if (e.key !== "Enter" && e.key !== " ") return;
  e.preventDefault();
  e.target.click();
});

// Whatever is wider than its box scrolls. While it does, it has a place in the order of
// the Tab key and a name, so that a keyboard can scroll it. Tables have theirs already.
(() => {
  const boxes = {
    "main div.sourceCode": "Code",
    "main pre:not(.sourceCode)": "Output",
    "main .formula": "Formula",
  };
  const mark = () => {
    for (const [which, name] of Object.entries(boxes))
      for (const box of document.querySelectorAll(which)) {
        const wide = box.scrollWidth > box.clientWidth + 1;
        if (wide === box.hasAttribute("tabindex")) continue;
        if (wide) {
          box.tabIndex = 0;
          box.setAttribute("role", "group");
          box.setAttribute("aria-label", `${name}, wider than the page`);
        } else for (const a of ["tabindex", "role", "aria-label"]) box.removeAttribute(a);
      }
  };
  new ResizeObserver(mark).observe(document.querySelector("main"));
  document.fonts?.ready.then(mark);
  mark();
})();
