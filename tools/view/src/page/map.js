// Physical memory: the whole as a bar, the page blocks of each zone as a map, and the frames of one of them.

import { $, BLOCK, PAGE, STACK, TYPES, TYPE_COLOURS, USES, colours, count, dot, hex, make, percent, post, size, surface, tip } from "./common.js";

const GAP = 1;
const TITLE = 22;
const NONE = 0xffff;
const FRAMES_WIDE = 32;
const FLAGS = ["locked", "dirty", "writeback", "referenced", "swap-backed", "paged", "returned", "isolated"];

let picture = null;
let places = []; // Zones as they were drawn: { zone, blocks, top, columns, cell }
let chosen = null; // The number of a page block.
let frame = null; // The place of the frame whose record is shown.

/// All frames by use: those of page blocks that have come, and what the zones say of free memory.
function totals() {
  const sum = new Array(USES.length).fill(0);
  for (const zone of picture.map) for (const uses of zone.uses) uses.forEach((n, use) => (sum[use] += n));
  return sum;
}

function uses(blocks, at) {
  const counts = blocks.uses[at];
  return counts.some((n) => n) ? counts : null;
}

export function draw(next) {
  picture = next;
  bar();
  map();
  zoom();
}

function bar() {
  const sum = totals();
  const all = sum.reduce((a, b) => a + b, 0);
  const order = [...STACK, 1];
  const bar = $("total");
  if (!bar.children.length) {
    for (const use of order) {
      const part = make("i", { title: USES[use].name });
      part.style.background = `var(--${USES[use].key})`;
      bar.append(part);
    }
    $("legend").append(...order.map((use) => {
      const mark = make("span", { class: "dot" });
      mark.style.background = `var(--${USES[use].key})`;
      return make("span", { title: USES[use].long }, mark, `${USES[use].name} `, make("b", { class: "n" }));
    }));
  }
  order.forEach((use, at) => {
    bar.children[at].style.width = `${(100 * sum[use]) / Math.max(all, 1)}%`;
    $("legend").children[at].querySelector("b").textContent = size(sum[use]);
  });
  const { managed, free, ram } = picture.system;
  $("memory-note").textContent = `${size(ram)}, of which the page allocator has ${size(managed)}; ${size(free)} free (${percent(free, managed)})`;
}

function map() {
  const canvas = $("map");
  const width = canvas.clientWidth;
  const number = picture.map.reduce((sum, blocks) => sum + blocks.kinds.length, 0);
  // Squares as large as they can be in about this height.
  const cell = Math.max(5, Math.min(34, Math.floor(Math.sqrt((width * 380) / Math.max(number, 1)))));
  const columns = Math.max(1, Math.floor((width + GAP) / cell));
  let top = 0;
  places = picture.map.map((blocks, at) => {
    const place = { zone: picture.zones[at], blocks, top: top + TITLE, columns, cell };
    top += TITLE + Math.ceil(blocks.kinds.length / columns) * cell + 8;
    return place;
  });
  const { context } = surface(canvas, Math.max(top, 60));
  context.font = "13px system-ui, 'DejaVu Sans', sans-serif";
  const byType = $("paint").value === "type";
  for (const place of places) {
    const { zone, blocks, top } = place;
    if (!zone) continue;
    context.fillStyle = colours().quiet;
    context.fillText(`Node ${zone.node}, zone ${zone.name}: ${size(zone.present)} from ${hex(zone.start * PAGE)}`, 0, top - 7);
    blocks.kinds.forEach((word, at) => {
      const [x, y] = [(at % columns) * cell, top + Math.floor(at / columns) * cell];
      square(context, x, y, cell - GAP, word, uses(blocks, at), byType);
      if (blocks.first + at === chosen) {
        context.strokeStyle = colours().text;
        context.lineWidth = 2;
        context.strokeRect(x - 1, y - 1, cell + 1, cell + 1);
      }
    });
  }
}

/// A page block: what is in use, from below.
function square(context, x, y, side, word, counts, byType) {
  const all = colours();
  if (word === NONE) {
    context.strokeStyle = all.line;
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
    return;
  }
  context.fillStyle = all.free;
  context.fillRect(x, y, side, side);
  const free = word & 0xfff;
  if (byType || !counts) {
    const level = (side * (BLOCK - free)) / BLOCK;
    context.fillStyle = byType ? all[TYPE_COLOURS[word >> 12]] : all.line;
    context.fillRect(x, y + side - level, side, level);
    if (byType) context.fillRect(x, y + side - 2, side, 2);
    return;
  }
  let bottom = y + side;
  for (const use of STACK) {
    const level = (side * counts[use]) / BLOCK;
    if (level === 0) continue;
    context.fillStyle = all[USES[use].key];
    context.fillRect(x, bottom - level, side, level);
    bottom -= level;
  }
}

/// The page block under the pointer: its zone, its place there and its number.
function under(event) {
  const { left, top } = $("map").getBoundingClientRect();
  const [x, y] = [event.clientX - left, event.clientY - top];
  for (const place of places) {
    const [column, row] = [Math.floor(x / place.cell), Math.floor((y - place.top) / place.cell)];
    const at = row * place.columns + column;
    if (row >= 0 && column >= 0 && column < place.columns && at < place.blocks.kinds.length) return { ...place, at, number: place.blocks.first + at };
  }
  return null;
}

function describe({ zone, blocks, at, number }) {
  const word = blocks.kinds[at];
  const lines = [make("b", {}, `Page block ${number}`), make("div", { class: "quiet" }, `${hex(number * BLOCK * PAGE)}, node ${zone.node}, zone ${zone.name}`)];
  if (word === NONE) return [...lines, make("div", {}, "not of this zone")];
  lines.push(make("div", {}, `${TYPES[word >> 12]}; ${word & 0xfff} of ${BLOCK} frames free`));
  const counts = uses(blocks, at);
  if (counts) [...STACK].filter((use) => counts[use]).forEach((use) => lines.push(make("div", {}, dot(USES[use].key), `${USES[use].name}: ${counts[use]}`)));
  return lines;
}

function choose(number) {
  chosen = number;
  frame = null;
  $("frame").hidden = true;
  post(`/zoom?block=${number}`).catch((error) => ($("zoom-note").textContent = error.message));
  if (picture) map();
}

const zoomCell = () => Math.floor($("zoom").clientWidth / FRAMES_WIDE);

/// The frames of the chosen page block; frames of one block of the buddy's are joined.
function zoom() {
  const title = $("zoom-title");
  if (chosen === null) {
    // The first one with something of everything is a good start.
    const some = picture.map.flatMap((blocks) => blocks.uses.map((uses, at) => [uses.filter((n) => n).length, blocks.first + at]));
    const best = some.reduce((best, one) => (one[0] > best[0] ? one : best), [2, null]);
    if (best[1] !== null) choose(best[1]);
    return;
  }
  title.textContent = `Page block ${chosen}: frames ${hex(chosen * BLOCK)} to ${hex(chosen * BLOCK + BLOCK - 1)}`;
  const data = picture.zoom;
  if (!data || data.block !== chosen) return;
  const cell = zoomCell();
  const { context } = surface($("zoom"), (cell * BLOCK) / FRAMES_WIDE);
  const all = colours();
  data.frames.forEach((word, at) => {
    const [x, y] = [(at % FRAMES_WIDE) * cell, Math.floor(at / FRAMES_WIDE) * cell];
    const isJoined = (other) => other < BLOCK && other % FRAMES_WIDE !== 0 && !(data.frames[other] & 0x100) && ((word >> 4) & 0xf) !== 0;
    context.fillStyle = all[USES[word & 0xf].key];
    context.fillRect(x, y, cell - (isJoined(at + 1) ? 0 : GAP), cell - GAP);
    const flags = (word >> 9) & 0xff;
    if (flags & 2) mark(context, x, y, cell, all.card);
    if (at === frame) {
      context.strokeStyle = all.text;
      context.lineWidth = 2;
      context.strokeRect(x, y, cell - 1, cell - 1);
    }
  });
  const free = data.frames.filter((word) => (word & 0xf) === 1).length;
  const blocks = data.frames.filter((word) => (word & 0xf) === 1 && word & 0x100).length;
  $("zoom-note").textContent = `${count(free)} frames free${free ? ` in ${blocks} block${blocks === 1 ? "" : "s"}` : ""}. Frames of one block are joined; a dot: dirty. Click a frame for its record.`;
}

function mark(context, x, y, cell, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x + cell / 2 - 0.5, y + cell / 2 - 0.5, Math.max(1.2, cell / 8), 0, 7);
  context.fill();
}

function frameUnder(event) {
  const { left, top } = $("zoom").getBoundingClientRect();
  const cell = zoomCell();
  const [column, row] = [Math.floor((event.clientX - left) / cell), Math.floor((event.clientY - top) / cell)];
  const at = row * FRAMES_WIDE + column;
  return column >= 0 && column < FRAMES_WIDE && at >= 0 && at < BLOCK && chosen !== null ? at : null;
}

function describeFrame(at) {
  const word = picture.zoom.frames[at];
  const use = USES[word & 0xf];
  const order = (word >> 4) & 0xf;
  const flags = FLAGS.filter((_, bit) => (word >> (9 + bit)) & 1);
  const references = word >>> 24;
  return [
    make("b", {}, `Frame ${hex(chosen * BLOCK + at)}`),
    make("div", {}, dot(use.key), use.name),
    make("div", { class: "quiet" }, use.long),
    make("div", {}, word & 0x100 || order ? `${word & 0x100 ? "first of" : "in"} a block of order ${order}${references ? `; ${references} reference${references === 1 ? "" : "s"}` : ""}` : ""),
    make("div", {}, flags.join(", ")),
  ];
}

/// The record of a frame: the direct map has it at its own address, in the kernel's half.
async function record(at) {
  frame = at;
  const box = $("frame");
  box.hidden = false;
  const address = (0xffff000000000000n + BigInt(chosen * BLOCK + at) * BigInt(PAGE)).toString(16);
  try {
    const { text } = await post(`/walk?pid=0&address=0x${address}`);
    const from = text.indexOf("\nframe");
    box.textContent = from < 0 ? "no frame of memory" : text.slice(from + 1).replaceAll(/^ +/gm, "").replace(/^frame +/, "frame ");
  } catch (error) {
    box.textContent = error.message;
  }
  zoom();
}

export function start() {
  tip($("map"), (event) => { const found = picture && under(event); return found ? describe(found) : null; });
  $("map").addEventListener("click", (event) => { const found = picture && under(event); if (found && found.blocks.kinds[found.at] !== NONE) choose(found.number); });
  tip($("zoom"), (event) => { const at = frameUnder(event); return at === null || picture?.zoom?.block !== chosen ? null : describeFrame(at); });
  $("zoom").addEventListener("click", (event) => { const at = frameUnder(event); if (at !== null) record(at); });
  $("paint").addEventListener("change", () => picture && map());
}

/// The machine has forgotten what it was told.
export function resume() { if (chosen !== null) post(`/zoom?block=${chosen}`).catch(() => {}); }
