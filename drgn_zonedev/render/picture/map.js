// SPDX-License-Identifier: LGPL-2.1-or-later
"use strict";
// What map_html.py wrote. Numbers are PFNs or indices of other tables; names are of strangers,
// so they only ever become text.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const { kernel, marks, accesses, texts, pgmaps, findings, nodes, kinds, pages } = data;

// One array for each column: starts are stored as distances from the end of the one before.
const ranges = (() => {
  const width = 6, n = data.ranges.length / width;
  const out = { n, start: new Float64Array(n), end: new Float64Array(n), mark: [], access: [], pgmap: [], text: [] };
  let at = 0;
  for (let i = 0; i < n; i++) {
    const [gap, count, mark, access, pgmap, text] = data.ranges.slice(i * width, i * width + width);
    out.start[i] = at + gap;
    at = out.end[i] = at + gap + count;
    out.mark.push(mark);
    out.access.push(access);
    out.pgmap.push(pgmap);
    out.text.push(text);
  }
  return out;
})();
const END = Math.max(1, ranges.n ? ranges.end[ranges.n - 1] : 1, ...nodes.map(n => n[2]));
const HOLE = marks.length - 1;

// Words.

const hex = n => `0x${n.toString(16)}`;
const span = (a, b) => `[${hex(a)}, ${hex(b)})`;
const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
function size(pageCount) {
  let n = pageCount * kernel.page_size, unit = 0;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit++; }
  return `${Number.isInteger(n) ? n : n.toFixed(1)} ${units[unit]}`;
}
function element(tag, words, attributes = {}) {
  const made = document.createElement(tag);
  if (words !== undefined) made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// The last span of a sorted column that begins at a PFN or below it.
function lastFrom(starts, pfn) {
  let low = 0, high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= pfn) low = middle + 1; else high = middle;
  }
  return low - 1;
}
function rangeAt(pfn) {
  const i = lastFrom(ranges.start, pfn);
  return i >= 0 && pfn < ranges.end[i] ? i : -1;
}

// Layers: columns of spans with a colour each, by rank: in a pixel, the lowest one is drawn.

function layer(name, rows, colours) {
  rows.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return { name, shown: true, colours, start: Float64Array.from(rows, r => r[0]), end: Float64Array.from(rows, r => r[1]),
    rank: rows.map(r => r[2]), label: rows.map(r => r[3]) };
}
const eachRange = f => Array.from({ length: ranges.n }, (_, i) => f(i));
const SEVERITIES = { error: 0, warning: 1, info: 2 };
const layers = [
  layer("case", eachRange(i => [ranges.start[i], ranges.end[i], ranges.mark[i], marks[ranges.mark[i]].name]), marks),
  layer("access", eachRange(i => [ranges.start[i], ranges.end[i], ranges.access[i], accesses[ranges.access[i]].name]), accesses),
  layer("findings", findings.flatMap((f, i) => pairs(f.spans).map(([a, b]) => [a, b, SEVERITIES[f.severity], `${i + 1} ${f.slug}`])),
    [{ fill: "#c44f00", ink: "#fff" }, { fill: "#e69f00", ink: "#000" }, { fill: "#56b4e9", ink: "#000" }]),
  layer("pgmap", pgmaps.flatMap((p, i) => pairs(p.spans).map(([a, b]) => [a, b, i % 2, `#${i + 1} ${p.name}`])),
    [{ fill: "#0072b2", ink: "#fff" }, { fill: "#56b4e9", ink: "#000" }]),
  layer("node", nodes.map(([nid, a, b]) => [a, b, nid % 2, `node ${nid}`]),
    [{ fill: "#009e73", ink: "#000" }, { fill: "#7b4b94", ink: "#fff" }]),
  layer("kind", kindSpans().map(([a, b, kind, n]) => [a, b, kind, kindWords(a, b, kind, n)]), kinds),
].filter(l => l.start.length);
// Of much RAM, one stretch in several was read.
const [readPages, everyPages] = data.kind_pages;
const isSampled = readPages !== everyPages;
function kindsNote() {
  if (!layers.some(l => l.name === "kind"))
    return data.verified ? "Kinds of pages are not shown: no struct page of RAM could be read." :
      "Kinds of pages are not shown: zonedev ranges reads no struct pages. zonedev check --map shows them.";
  return isSampled ? `Kinds of pages are samples: ${size(readPages)} of each ${size(everyPages)} of RAM. Zoom in to see where.` : "";
}
// A span has a kind, and how many of its pages are of that one.
function kindSpans() {
  const out = [];
  for (let i = 0, at = 0; i < data.kind_spans.length; i += 4) {
    const [gap, count, kind, n] = data.kind_spans.slice(i, i + 4);
    out.push([at + gap, at + gap + count, kind, n]);
    at += gap + count;
  }
  return out;
}
function kindWords(a, b, kind, n) {
  return n === b - a ? kinds[kind].name : `${kinds[kind].name} ${Math.floor(100 * n / (b - a))}%`;
}
function pairs(flat) {
  const out = [];
  for (let i = 0; i < flat.length; i += 2) out.push([flat[i], flat[i + 1]]);
  return out;
}

// The view: the PFN at the left edge, and PFNs per pixel.

const canvas = byId("map"), whole = byId("whole");
const view = { start: 0, scale: 1, selected: null };
const AXIS = 26, MOST_PIXELS_A_PAGE = 48;
let width = 1, height = 1, pending = false, patterns = new Map(), listed = "", listing = 0;

const lastScale = () => END / width;
function clamp() {
  view.scale = Math.min(Math.max(view.scale, 1 / MOST_PIXELS_A_PAGE), Math.max(lastScale(), 1 / MOST_PIXELS_A_PAGE));
  view.start = Math.min(Math.max(view.start, 0), Math.max(END - width * view.scale, 0));
}
function request() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}
function zoom(factor, x = width / 2) {
  const pfn = view.start + x * view.scale;
  view.scale *= factor;
  clamp();
  view.start = pfn - x * view.scale;
  clamp();
  request();
}
function move(pixels) {
  view.start += pixels * view.scale;
  clamp();
  request();
}
function show(start, end) {
  // With some of what is beside it.
  const room = Math.max((end - start) / 8, 2);
  view.scale = (end - start + 2 * room) / width;
  view.start = start - room;
  clamp();
  // If that is less than it may be.
  view.start = (start + end) / 2 - width * view.scale / 2;
  clamp();
  request();
}

// Drawing.

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function fillOf(context, look) {
  if (!look.hatch) return look.fill;
  if (!patterns.has(look)) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const c = tile.getContext("2d");
    c.fillStyle = look.fill;
    c.fillRect(0, 0, 8, 8);
    c.strokeStyle = look.ink;
    c.globalAlpha = 0.35;
    c.beginPath();
    if (look.hatch !== "down") { c.moveTo(-2, 10); c.lineTo(10, -2); c.moveTo(-2, 2); c.lineTo(2, -2); c.moveTo(6, 10); c.lineTo(10, 6); }
    if (look.hatch !== "up") { c.moveTo(-2, -2); c.lineTo(10, 10); c.moveTo(6, -2); c.lineTo(10, 2); c.moveTo(-2, 6); c.lineTo(2, 10); }
    c.stroke();
    patterns.set(look, context.createPattern(tile, "repeat"));
  }
  return patterns.get(look);
}
function drawLayer(context, l, start, scale, top, tall, labels) {
  const right = start + width * scale;
  const thin = new Map();
  let i = Math.max(lastFrom(l.start, start), 0);
  // Spans may overlap those that began before.
  while (labels && i > 0 && l.end[i - 1] > start) i--;
  for (; i < l.start.length && l.start[i] < right; i++) {
    if (l.end[i] <= start) continue;
    const a = Math.max((l.start[i] - start) / scale, 0), b = Math.min((l.end[i] - start) / scale, width);
    if (b - a < 1.5) {
      const x = Math.floor(a), rank = l.rank[i];
      if (!(thin.get(x) <= rank)) thin.set(x, rank);
      continue;
    }
    const look = l.colours[l.rank[i]];
    context.fillStyle = fillOf(context, look);
    context.fillRect(a, top, b - a, tall);
    if (labels && b - a > 24) {
      const room = Math.floor((b - a - 8) / 7), words = l.label[i];
      context.fillStyle = look.ink;
      context.fillText(words.length <= room ? words : room > 3 ? `${words.slice(0, room - 1)}\u2026` : look.letter || "", a + 4, top + tall / 2);
    }
  }
  // Whatever is smaller than a pixel is seen all the same.
  for (const [x, rank] of thin) {
    context.fillStyle = l.colours[rank].fill;
    context.fillRect(x, top, 2, tall);
  }
}
function drawAxis(context) {
  context.fillStyle = css("--soft");
  context.strokeStyle = css("--rule");
  const least = 150 * view.scale;
  let step = 1;
  while (step < least) step *= 2;
  for (let pfn = Math.ceil(view.start / step) * step; pfn < view.start + width * view.scale; pfn += step) {
    const x = Math.round((pfn - view.start) / view.scale) + 0.5;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, height);
    context.stroke();
    context.fillText(hex(pfn), x + 4, AXIS / 2);
  }
}
function contextOf(target) {
  const ratio = window.devicePixelRatio || 1, box = target.getBoundingClientRect();
  const w = Math.max(Math.round(box.width * ratio), 1), h = Math.max(Math.round(box.height * ratio), 1);
  if (target.width !== w || target.height !== h) { target.width = w; target.height = h; patterns = new Map(); }
  const context = target.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = css("--paper");
  context.fillRect(0, 0, box.width, box.height);
  context.font = "12px ui-monospace, Menlo, Consolas, monospace";
  context.textBaseline = "middle";
  return [context, box];
}
function draw() {
  const [context, box] = contextOf(canvas);
  if (box.width !== width || box.height !== height) {
    const seen = width > 1 ? width * view.scale : END;
    width = box.width;
    height = box.height;
    view.scale = seen / width;
    clamp();
  }
  drawAxis(context);
  const shown = layers.filter(l => l.shown);
  const tall = (height - AXIS) / Math.max(shown.length, 1);
  shown.forEach((l, i) => {
    const top = AXIS + i * tall;
    context.fillStyle = css("--soft");
    context.fillText(l.name, 4, top + 8);
    drawLayer(context, l, view.start, view.scale, top + 16, tall - 20, true);
  });
  if (view.selected !== null) {
    const x = (view.selected - view.start) / view.scale;
    context.strokeStyle = css("--pick");
    context.lineWidth = 2;
    context.strokeRect(x, AXIS - 6, Math.max(1 / view.scale, 2), height - AXIS + 4);
    context.lineWidth = 1;
  }
  drawWhole();
  describe();
}
function drawWhole() {
  const [context, box] = contextOf(whole);
  drawLayer(context, layers[0] || layer("", [], []), 0, END / box.width, 0, box.height, false);
  context.strokeStyle = css("--pick");
  context.lineWidth = 3;
  context.strokeRect(view.start / END * box.width, 1.5, Math.max(width * view.scale / END * box.width, 3), box.height - 3);
}

// Text beside the map.

const MOST_LISTED = 60;
function describe() {
  const start = Math.floor(view.start), end = Math.min(Math.ceil(view.start + width * view.scale), END);
  const first = Math.max(lastFrom(ranges.start, start), 0);
  const inside = [];
  let n = 0;
  for (let i = first; i < ranges.n && ranges.start[i] < end; i++)
    if (ranges.end[i] > start && ++n <= MOST_LISTED) inside.push(i);
  const words = `PFNs ${span(start, end)}, ${size(end - start)}, ${count(n, "range")}`;
  byId("view").textContent = words;
  canvas.setAttribute("aria-label", `Physical memory, ${words}`);
  const key = `${n} ${inside[0]}`;
  if (key === listed) return;
  listed = key;
  // Tables are slow: wait until the map stands still.
  clearTimeout(listing);
  listing = setTimeout(listRanges, 120, inside, n);
}
function listRanges(inside, n) {
  const table = element("table"), head = element("tr");
  for (const words of ["PFNs", "case", "access", "pages", "pgmap"]) head.append(element("th", words, { scope: "col" }));
  table.append(head);
  for (const i of inside) {
    const row = element("tr"), where = element("td");
    const link = element("button", span(ranges.start[i], ranges.end[i]));
    link.onclick = () => { show(ranges.start[i], ranges.end[i]); select(ranges.start[i]); };
    where.append(link);
    row.append(where, element("td", marks[ranges.mark[i]].name), element("td", accesses[ranges.access[i]].name),
      element("td", (ranges.end[i] - ranges.start[i]).toLocaleString("en")),
      element("td", ranges.pgmap[i] < 0 ? "" : `#${ranges.pgmap[i] + 1} ${pgmaps[ranges.pgmap[i]].name}`));
    table.append(row);
  }
  const parts = [table];
  if (n > inside.length) parts.push(element("p", `and ${count(n - inside.length, "range")} more: zoom in.`, { class: "soft" }));
  byId("ranges").replaceChildren(...parts);
}
const about = pfn => findings.map((f, i) => [f, i]).filter(([f]) => pairs(f.spans).some(([a, b]) => a <= pfn && pfn < b));
function select(pfn) {
  view.selected = pfn;
  const i = rangeAt(pfn), panel = [];
  const section = Math.floor(pfn / kernel.section_pages);
  panel.push(element("p", `PFN ${hex(pfn)}, physical address ${hex(pfn * kernel.page_size)}, section ${section}`));
  if (i < 0) {
    panel.push(element("p", `${marks[HOLE].name}: there is no struct page for it`));
  } else {
    const p = ranges.pgmap[i];
    panel.push(element("p", `${marks[ranges.mark[i]].name}, in ${span(ranges.start[i], ranges.end[i])}, ${size(ranges.end[i] - ranges.start[i])}: ${texts[ranges.text[i]]}`));
    panel.push(element("p", `memory: ${accesses[ranges.access[i]].name}`));
    if (p >= 0) panel.push(element("p", pgmaps[p].words));
    const l = layers.find(known => known.name === "kind"), k = l ? lastFrom(l.start, pfn) : -1;
    if (k >= 0 && pfn < l.end[k]) panel.push(element("p", `kind of page: ${l.label[k]}, in ${span(l.start[k], l.end[k])}`));
    else if (l && isSampled) panel.push(element("p", "kind of page: not shown here"));
  }
  for (const [f, number] of about(pfn)) {
    const line = element("p"), link = element("button", `finding ${number + 1}`);
    link.onclick = () => byId(`finding-${number + 1}`).focus();
    line.append(link, ` ${f.line}`);
    panel.push(line);
  }
  if (pages[pfn]) panel.push(element("pre", pages[pfn]));
  else panel.push(element("p", `The struct page: zonedev pfn ${hex(pfn)}`, { class: "soft" }));
  byId("page").replaceChildren(...panel);
  history.replaceState(null, "", `#${hex(pfn)}`);
  request();
}
function listFindings() {
  const list = element("ol");
  findings.forEach((f, i) => {
    const item = element("li"), link = element("button", f.line, { id: `finding-${i + 1}` });
    if (f.severity === "error") link.className = "error";
    link.onclick = () => {
      if (!f.spans.length) return;
      show(f.spans[0], f.spans[1]);
      select(f.spans[0]);
    };
    item.append(link);
    list.append(item);
  });
  const none = data.verified ? "There are none." : "Nothing was verified: zonedev check does.";
  byId("findings").replaceChildren(findings.length ? list : element("p", none, { class: "soft" }));
}
// Kinds have no letters: some differ in their hatching only.
function hatching(look) {
  const lines = degrees => `repeating-linear-gradient(${degrees}deg, ${look.ink}59 0 1px, transparent 1px 5px)`;
  const angles = { up: [135], down: [45], cross: [45, 135] }[look.hatch] || [];
  return angles.map(lines).join(", ") || "none";
}
function listLegend() {
  const list = element("ul", undefined, { style: "list-style:none;padding:0" });
  const used = new Set(ranges.mark);
  marks.forEach((mark, i) => {
    if (!used.has(i) && i !== HOLE) return;
    const item = element("li"), key = element("span", mark.letter, { class: "key" });
    key.style.background = mark.fill;
    key.style.color = mark.ink;
    item.append(key, ` ${mark.name}`);
    list.append(item);
  });
  const kindList = element("ul", undefined, { style: "list-style:none;padding:0" });
  const seen = new Set((layers.find(l => l.name === "kind") || { rank: [] }).rank);
  kinds.forEach((kind, i) => {
    if (!seen.has(i)) return;
    const item = element("li"), key = element("span", "\u00a0", { class: "key" });
    key.style.backgroundColor = kind.fill;
    key.style.backgroundImage = hatching(kind);
    item.append(key, ` ${kind.name}`);
    kindList.append(item);
  });
  byId("legend").replaceChildren(list, kindList, element("p", kindsNote(), { class: "soft" }), element("p", "PFN walkers must not read the struct pages of a case with a capital letter.", { class: "soft" }));
}

// Going somewhere.

function place(words) {
  const number = /^@?(0x[0-9a-f]+|\d+)$/i.exec(words);
  if (number) {
    const value = Number(number[1]), page = Math.floor(value / kernel.page_size);
    if (!words.startsWith("@") && value < END) return [value, value + 1];
    return page < END ? [page, page + 1] : null;
  }
  const plain = words.toLowerCase();
  const p = pgmaps.find(q => q.words.toLowerCase().includes(plain));
  if (p && p.spans.length) return [p.spans[0], p.spans[1]];
  const f = findings.find(g => g.line.toLowerCase().includes(plain) && g.spans.length);
  if (f) return [f.spans[0], f.spans[1]];
  const i = ranges.mark.findIndex(mark => marks[mark].name.toLowerCase().includes(plain));
  return i < 0 ? null : [ranges.start[i], ranges.end[i]];
}
function go(words) {
  const found = words && place(words);
  if (!found) {
    byId("page").replaceChildren(element("p", `Nothing in this map is ${words || "empty"}: give a PFN, @ and an address, or a part of a name.`));
    return;
  }
  show(...found);
  select(found[0]);
}
function step(direction) {
  const middle = view.selected ?? Math.floor(view.start + width * view.scale / 2);
  let i = lastFrom(ranges.start, middle) + direction;
  i = Math.min(Math.max(i, 0), ranges.n - 1);
  if (i < 0) return;
  show(ranges.start[i], ranges.end[i]);
  select(ranges.start[i]);
}
const centre = () => Math.min(Math.floor(view.start + width * view.scale / 2), END - 1);
const KEYS = {
  ArrowLeft: () => move(-width / 8), ArrowRight: () => move(width / 8), PageUp: () => move(-width), PageDown: () => move(width),
  "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), Home: () => { view.scale = Infinity; clamp(); request(); },
  n: () => step(1), p: () => step(-1), Enter: () => select(centre()),
};

// Events.

let drag = null;
canvas.addEventListener("keydown", e => {
  if (e.ctrlKey || e.altKey || e.metaKey || !KEYS[e.key]) return;
  e.preventDefault();
  KEYS[e.key]();
});
canvas.addEventListener("wheel", e => {
  e.preventDefault();
  zoom(Math.pow(2, e.deltaY / 200), e.offsetX);
}, { passive: false });
canvas.addEventListener("pointerdown", e => { drag = { x: e.offsetX, moved: 0 }; canvas.setPointerCapture(e.pointerId); });
canvas.addEventListener("pointermove", e => {
  const pfn = Math.floor(view.start + e.offsetX * view.scale), i = rangeAt(pfn);
  canvas.title = pfn >= END ? "" : `PFN ${hex(pfn)}: ${i < 0 ? marks[HOLE].name : `${marks[ranges.mark[i]].name}, memory ${accesses[ranges.access[i]].name}`}`;
  if (!drag) return;
  drag.moved += Math.abs(e.offsetX - drag.x);
  move(drag.x - e.offsetX);
  drag.x = e.offsetX;
});
canvas.addEventListener("pointerup", e => {
  if (drag && drag.moved < 4) select(Math.min(Math.max(Math.floor(view.start + e.offsetX * view.scale), 0), END - 1));
  drag = null;
});
canvas.addEventListener("pointercancel", () => { drag = null; });
whole.addEventListener("click", e => { view.start = e.offsetX / whole.clientWidth * END - width * view.scale / 2; clamp(); request(); });
byId("find").addEventListener("submit", e => { e.preventDefault(); go(byId("query").value.trim()); });
for (const [id, key] of [["in", "+"], ["out", "-"], ["all", "Home"], ["back", "p"], ["next", "n"]]) byId(id).onclick = KEYS[key];
new ResizeObserver(request).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", request);

// The beginning.

byId("title").textContent = data.title;
byId("about").textContent = data.about;
byId("origin").textContent = data.origin ?? "";
for (const l of layers) {
  const label = element("label"), box = element("input", undefined, { type: "checkbox", checked: "" });
  box.onchange = () => { l.shown = box.checked; request(); };
  label.append(box, ` ${l.name} `);
  byId("layers").append(label);
}
listFindings();
listLegend();
width = canvas.getBoundingClientRect().width || 1;
height = canvas.getBoundingClientRect().height || 1;
view.scale = lastScale();
if (/^#0x[0-9a-f]+$/.test(location.hash)) go(location.hash.slice(1));
request();
