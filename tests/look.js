// Runs in a page; returns what is wrong there, and what it looks like.
// Contrast is WCAG 2's: 4.5 for text, 3 for large text.
async () => {
  const wrong = [], wide = innerWidth, main = document.querySelector("main");
  document.querySelectorAll("details").forEach((d) => (d.open = true));
  for (const img of document.images) {
    img.loading = "eager";
    await img.decode().catch(() => {});
    if (!img.naturalWidth) wrong.push(`no picture: ${img.src.slice(0, 80)}`);
  }
  await document.fonts.ready;

  const maths = [...document.querySelectorAll("math")];
  for (const m of maths) {
    const r = m.getBoundingClientRect();
    if (m.checkVisibility() && (r.width < 2 || r.height < 4))
      wrong.push(`a formula is not drawn: ${m.textContent.slice(0, 60)}`);
  }
  const font = [...document.fonts].find((f) => f.family.includes("Course Math"));
  if (maths.length && font?.status !== "loaded") wrong.push("no font for mathematics");

  const page = document.documentElement.scrollWidth;
  if (page > wide) wrong.push(`the page is ${page} wide in a window of ${wide}`);
  const scrolls = (e) => {
    for (; e && e !== main; e = e.parentElement)
      if (/auto|scroll/.test(getComputedStyle(e).overflowX)) return true;
    return false;
  };
  for (const e of main.querySelectorAll("*")) {
    const r = e.getBoundingClientRect();
    const inside = !r.width || !r.height || r.right <= wide + 1;
    if (inside || scrolls(e) || e.closest("math, svg")) continue;
    const right = Math.round(r.right);
    wrong.push(`<${e.localName} class="${e.className}"> reaches ${right} of ${wide}`);
    break;
  }

  const rgb = (c) => {
    const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number);
    const f = c.startsWith("color(srgb") ? 255 : 1;
    return [r * f, g * f, b * f, a];
  };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3]));
  const ground = (e) => {
    if (!e) return [255, 255, 255];
    const c = rgb(getComputedStyle(e).backgroundColor);
    return c[3] === 1 ? c.slice(0, 3) : over(c, ground(e.parentElement));
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => {
    const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const said = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const silent = /^(script|style|annotation|noscript|template)$/i;
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
    if (!text || !e || silent.test(e.localName) || e.closest("svg")) continue;
    if (!e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const r = e.getBoundingClientRect();
    if (!r.width || !r.height) continue;
    const s = getComputedStyle(e), px = parseFloat(s.fontSize), back = ground(e);
    let alpha = 1;
    for (let p = e; p; p = p.parentElement) alpha *= getComputedStyle(p).opacity;
    const c = rgb(s.color), front = over([...c.slice(0, 3), c[3] * alpha], back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = px >= 24 || (px >= 18.66 && s.fontWeight >= 700);
    const key = s.color + back;
    if (ratio >= (large ? 3 : 4.5) || said.has(key)) continue;
    said.add(key);
    const on = `${s.color} on rgb(${back.map(Math.round)})`;
    wrong.push(`contrast ${ratio.toFixed(2)} of ${on}: ${text.slice(0, 40)}`);
  }
  const dark = light(ground(document.body)) < 0.2;
  const head = document.querySelector("#quarto-header").getBoundingClientRect().height;
  const text = main.getBoundingClientRect().width;
  return { wrong, dark, maths: maths.length, head, text };
}
