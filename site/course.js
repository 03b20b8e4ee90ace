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

// What a reader has done: exercises ticked, questions answered, chapters read. It stays
// in this browser, in localStorage under one key, and is sent nowhere.
// {done: {"lstm.2": "2026-11-28", "lstm.read": …}, said: {"lstm.q1": "cb"}}
(() => {
  const KEY = "mmcourse-progress";
  const all = (which, within = document) => [...within.querySelectorAll(which)];
  const empty = () => ({ done: {}, said: {} });
  const today = () => new Date().toISOString().slice(0, 10);
  let kept = empty();

  const checked = (value) => {
    const clean = empty();
    for (const part of Object.keys(clean))
      for (const [id, text] of Object.entries(value[part]))
        if (/^\w+\.\w+$/.test(id) && typeof text === "string")
          clean[part][id] = text.slice(0, 20);
    return clean;
  };
  const load = () => {
    try {
      kept = checked(JSON.parse(localStorage.getItem(KEY)));
    } catch {
      kept = empty(); // nothing yet, or a browser that keeps nothing
    }
  };
  const save = () => {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      // it lasts as long as the page
    }
    show();
  };

  // how far a chapter's link is: read or not, and how many tasks are done
  const state = (link) => {
    const chapter = link.dataset.chapter + ".";
    const own = Object.keys(kept.done).filter((id) => id.startsWith(chapter));
    const questions = own.filter((id) => /\.q\d+$/.test(id)).length;
    const exercises = own.filter((id) => /\.\d+$/.test(id)).length;
    const most = link.dataset.tasks.split(" ").map(Number);
    return {
      read: chapter + "read" in kept.done,
      exercises: Math.min(exercises, most[0]),
      questions: Math.min(questions, most[1]),
      most,
    };
  };

  const showLinks = () => {
    for (const link of all("a[data-chapter]")) {
      const { read, exercises, questions, most } = state(link);
      const done = exercises + questions;
      const mark = link.querySelector(".how-far") || document.createElement("span");
      mark.className = "how-far";
      mark.textContent = read ? "✓" : done ? `${done}/${most[0] + most[1]}` : "";
      const said = document.createElement("span");
      said.className = "visually-hidden";
      said.textContent = read ? " read" : done ? " done" : "";
      mark.append(said);
      link.append(mark);
      link.classList.toggle("is-read", read);
      link.classList.toggle("is-begun", !read && done > 0);
    }
  };

  const showQuizzes = () => {
    for (const quiz of all("[data-question]")) {
      const id = quiz.dataset.question;
      const found = id in kept.done;
      for (const choice of all(".choice", quiz)) {
        const chosen = (kept.said[id] || "").includes(choice.dataset.choice);
        choice.classList.toggle("chosen", chosen);
        if (chosen || found) choice.open = true;
      }
      quiz.classList.toggle("is-done", found);
    }
  };

  const showPanel = () => {
    const panel = document.getElementById("your-progress");
    if (!panel) return;
    const states = all(".node[data-chapter]").map(state);
    const sum = (of) => states.reduce((total, s) => total + Number(of(s)), 0);
    const rows = [
      ["chapters read", sum((s) => s.read), states.length],
      ["exercises ticked", sum((s) => s.exercises), sum((s) => s.most[0])],
      ["questions answered", sum((s) => s.questions), sum((s) => s.most[1])],
    ];
    const said = rows.map(([name, n, most]) => `${n} of ${most} ${name}`);
    panel.querySelector(".progress-said").textContent = said.join(" · ");
    panel.hidden = false;
    const next = all(".node[data-chapter]").find((link) => !state(link).read);
    const begin = document.querySelector(".begin-link");
    if (!begin || !next) return;
    begin.dataset.first ||= begin.textContent;
    const begun = Object.keys(kept.done).length > 0;
    const name = next.querySelector(".node-name").textContent;
    begin.textContent = begun ? `Go on with ${name}` : begin.dataset.first;
    begin.href = next.href;
  };

  const show = () => {
    for (const box of all("input[data-tick]")) {
      box.checked = box.dataset.tick in kept.done;
      box.closest(".card-box")?.classList.toggle("is-done", box.checked);
    }
    showQuizzes();
    showLinks();
    showPanel();
  };

  addEventListener("change", (e) => {
    const id = e.target.dataset?.tick;
    if (!id) return;
    load(); // another tab may have written
    if (e.target.checked) kept.done[id] = today();
    else delete kept.done[id];
    save();
  });

  // A click on a choice, or Enter or Space while it has the focus, answers at once.
  addEventListener("click", (e) => {
    const choice = e.target.closest?.("summary")?.closest(".choice");
    if (!choice) return;
    const quiz = choice.closest("[data-question]");
    const id = quiz.dataset.question;
    const letter = choice.dataset.choice;
    const right = choice.classList.contains("right");
    const before = kept.said[id] || "";
    if (before.includes(letter) || id in kept.done) return; // it only opens and closes
    e.preventDefault(); // `show` opens it
    load();
    kept.said[id] = before + letter;
    if (right) kept.done[id] = today();
    save();
    quiz.querySelector("[role=status]").textContent = right
      ? "Right. Every choice is explained now."
      : "Not right. The reason stands below the choice.";
  });

  // ---- export, import, reset
  const tell = (text) => {
    document.querySelector("#your-progress [role=status]").textContent = text;
  };
  const file = () => document.querySelector("#your-progress input[type=file]");
  const actions = {
    export() {
      const link = document.createElement("a");
      const text = JSON.stringify(kept, null, 1);
      link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      link.download = `mmcourse-progress-${today()}.json`;
      link.click();
      URL.revokeObjectURL(link.href);
      tell("Saved as a file.");
    },
    import() {
      file().click();
    },
    reset() {
      if (!confirm("Forget all that is ticked and answered?")) return;
      kept = empty();
      for (const choice of all(".choice")) choice.open = false;
      save();
      tell("All is forgotten.");
    },
  };
  for (const button of all("#your-progress [data-do]"))
    button.addEventListener("click", () => actions[button.dataset.do]());
  file()?.addEventListener("change", async () => {
    const [chosen] = file().files;
    if (!chosen) return;
    try {
      const more = checked(JSON.parse(await chosen.text()));
      load();
      for (const part of Object.keys(kept)) Object.assign(kept[part], more[part]);
      save();
      tell("Added.");
    } catch {
      tell("This is no file that Export has saved.");
    }
    file().value = "";
  });

  const again = () => {
    load();
    show();
  };
  addEventListener("storage", (e) => e.key === KEY && again()); // from another tab
  addEventListener("pageshow", (e) => e.persisted && again()); // back to this page
  again();
})();

// The map: a line from each chapter to those that use it.
(() => {
  const map = document.querySelector(".map");
  if (!map) return;
  const NS = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(NS, "svg");
  drawing.setAttribute("aria-hidden", "true");
  map.prepend(drawing);
  const nodes = [...map.querySelectorAll(".node")];
  const at = (n) => document.getElementById(`map-${n}`);
  let lines = [];

  const path = (a, b, o) => {
    const x = a.left + a.width / 2 - o.left;
    const u = b.left + b.width / 2 - o.left;
    const y = a.bottom - o.top;
    const v = b.top - o.top;
    if (v > y) {
      const bend = Math.min(60, (v - y) * 0.6);
      return `M${x} ${y} C${x} ${y + bend} ${u} ${v - bend} ${u} ${v}`;
    }
    const low = b.bottom - o.top; // side by side: below both
    const dip = Math.max(y, low) + 18;
    return `M${x} ${y} C${x} ${dip} ${u} ${dip} ${u} ${low}`;
  };
  const draw = () => {
    const o = map.getBoundingClientRect();
    drawing.setAttribute("width", o.width);
    drawing.setAttribute("height", o.height);
    drawing.replaceChildren();
    lines = [];
    for (const to of nodes)
      for (const n of to.dataset.from.split(" ").filter(Boolean)) {
        const from = at(n);
        const line = document.createElementNS(NS, "path");
        const ends = [from, to].map((e) => e.getBoundingClientRect());
        line.setAttribute("d", path(...ends, o));
        drawing.append(line);
        lines.push({ from, to, line });
      }
  };
  const point = (node) => {
    map.classList.toggle("is-pointing", Boolean(node));
    for (const e of nodes) e.classList.toggle("is-near", e === node);
    for (const { from, to, line } of lines) {
      const near = node === from || node === to;
      line.classList.toggle("is-near", near);
      if (near) for (const e of [from, to]) e.classList.add("is-near");
    }
  };
  for (const node of nodes) {
    for (const on of ["mouseenter", "focus"]) node.addEventListener(on, () => point(node));
    for (const off of ["mouseleave", "blur"]) node.addEventListener(off, () => point());
  }
  new ResizeObserver(draw).observe(map);
  draw();
})();

// A word's entry stays within the window, and goes when Escape is pressed.
(() => {
  const place = (e) => {
    const term = e.target.closest?.(".term");
    if (!term) return;
    const box = term.querySelector(".entry");
    term.classList.remove("is-shut");
    box.style.setProperty("--shift", "0px");
    const over = box.getBoundingClientRect().right - document.body.clientWidth + 12;
    box.style.setProperty("--shift", `${-Math.max(0, over)}px`);
  };
  addEventListener("mouseover", place);
  addEventListener("focusin", place);
  addEventListener("keydown", (e) => {
    if (e.key !== "Escape") return;
    for (const term of document.querySelectorAll(".term:is(:hover, :focus-within)"))
      term.classList.add("is-shut");
  });
})();
