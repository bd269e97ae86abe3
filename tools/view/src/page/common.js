// What all parts of the page share: names and colours of uses, numbers as text, elements, the tip beside the pointer.

export const USES = [
  { key: "reserved", name: "reserved at boot", long: "In no block of the page allocator: kernel image, boot archive, page records" },
  { key: "free", name: "free", long: "On the buddy lists" },
  { key: "percpu", name: "per-CPU lists", long: "Free, kept ready for one CPU" },
  { key: "slab", name: "slab", long: "The kernel's objects, in caches" },
  { key: "kernel", name: "kernel", long: "The kernel's otherwise: stacks, the store of swap, …" },
  { key: "table", name: "page tables", long: "Translation tables" },
  { key: "anon", name: "anonymous", long: "Programs' own memory: heap, stack, copies" },
  { key: "object", name: "files and shared", long: "Pages of memory objects: files, shared memory" },
];
/// The order in which uses are stacked: what is in use first.
export const STACK = [4, 3, 5, 6, 7, 2, 0];
export const TYPES = ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate"];
export const TYPE_COLOURS = ["kernel", "anon", "slab", "warn", "table", "swap"];
export const BLOCK = 512;
export const PAGE = 4096;

let palette = {};
/// The colours as the style sheet has them now.
export function colours() { return palette; }
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "card", "line", "text", "quiet", "accent", "sunk", "free", "percpu", "slab", "kernel", "table", "anon", "object", "reserved", "swap", "warn", "good"])
    palette[name] = style.getPropertyValue("--" + name).trim();
}

export const $ = (id) => document.getElementById(id);

/// An element with text and attributes.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) name === "class" ? (element.className = value) : element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/// Pages as a size.
export function size(pages) {
  const kib = pages * 4;
  if (kib < 1024) return `${kib} KiB`;
  if (kib < 1024 * 1024) return `${(kib / 1024).toFixed(kib < 10240 ? 1 : 0)} MiB`;
  return `${(kib / 1048576).toFixed(2)} GiB`;
}
export const count = (n) => Math.round(n).toLocaleString("en");
export const hex = (n) => "0x" + n.toString(16);
export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part * 10 < whole ? 1 : 0)} %` : "–");

/// A canvas of this height, sharp on every screen: its context and width.
export function surface(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    canvas.style.height = height + "px";
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width };
}

/// Shows what `what` says (elements or text, or null) beside the pointer while it is over an element.
export function tip(element, what) {
  const box = $("tip");
  const place = (event) => {
    const content = what(event);
    box.hidden = content === null;
    if (content === null) return;
    box.replaceChildren(...[content].flat());
    const { width, height } = box.getBoundingClientRect();
    box.style.left = Math.min(event.clientX + 14, innerWidth - width - 8) + "px";
    box.style.top = (event.clientY + height + 24 > innerHeight ? event.clientY - height - 10 : event.clientY + 16) + "px";
  };
  element.addEventListener("pointermove", place);
  element.addEventListener("pointerleave", () => (box.hidden = true));
}

/// Asks the server for something; its answer, or an error with what it said.
export async function post(path) {
  const response = await fetch(path, { method: "POST" });
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

/// The text of a walk, with its labels set off.
export function walkText(holder, text) {
  holder.replaceChildren(...text.split("\n").flatMap((line, at) => {
    const label = /^(bits .{8}|[A-Za-z]\S*( \d)?\s+|[A-Za-z]+$)/.exec(line);
    if (at === 0 || !label) return [line, "\n"];
    return [make("b", {}, label[0]), line.slice(label[0].length), "\n"];
  }));
}

/// A table: columns are [heading, is a number], rows are arrays of cells. Kept rows are changed where they differ, so that what is chosen stays.
export function table(holder, columns, rows) {
  let body = holder.querySelector("tbody");
  if (!body) {
    const head = make("tr", {}, ...columns.map(([name, isNumber]) => make("th", isNumber ? { class: "n" } : {}, name)));
    body = make("tbody");
    holder.replaceChildren(make("table", {}, make("thead", {}, head), body));
  }
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, at) => {
    const line = body.rows[at] ?? body.insertRow();
    line.className = row.class ?? "";
    line.dataset.key = row.key ?? "";
    if (row.class?.includes("pick")) line.tabIndex = 0;
    row.cells.forEach((cell, column) => {
      const field = line.cells[column] ?? line.insertCell();
      field.className = columns[column][1] ? "n" : "";
      if (cell instanceof Node) field.replaceChildren(cell);
      else if (field.firstElementChild || field.textContent !== String(cell)) field.textContent = cell;
    });
  });
}

export function meter(part, whole, isOver = false) {
  const bar = make("i");
  bar.style.width = `${whole ? Math.min(100, (100 * part) / whole) : 0}%`;
  return make("span", { class: isOver ? "meter over" : "meter" }, bar);
}

export function dot(colour) {
  const mark = make("span", { class: "dot" });
  mark.style.background = colours()[colour];
  return mark;
}
