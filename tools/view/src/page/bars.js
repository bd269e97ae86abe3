// Zones, buddy lists, slab caches and control groups.

import { $, count, make, meter, percent, size, table } from "./common.js";

const ORDERS = 11;
let before = null; // The free blocks of the picture before, by zone and order.

export function draw(picture) {
  zones(picture.zones);
  ages(picture.lists);
  buddy(picture.zones);
  slabs(picture.slabs);
  groups(picture);
}

/// As many children as there are items, each shown by `show`.
function each(holder, items, build, show) {
  while (holder.children.length > items.length) holder.lastChild.remove();
  items.forEach((item, at) => {
    const element = holder.children[at] ?? holder.appendChild(build());
    show(element, item, at);
  });
}

function zones(all) {
  const build = () => make("div", { class: "zone" },
    make("div", { class: "line" }, make("b"), make("span", { class: "n" })),
    make("div", { class: "gauge" }, make("i"), make("b"), make("b"), make("b")),
    make("div", { class: "marks" }, make("span"), make("span"), make("span")));
  each($("zones"), all, build, (element, zone) => {
    const [name, note] = element.children[0].children;
    name.textContent = `Node ${zone.node}, ${zone.name}`;
    note.textContent = `${size(zone.free)} free of ${size(zone.managed)} (${percent(zone.free, zone.managed)}), ${size(zone.perCpu)} on per-CPU lists`;
    const gauge = element.children[1];
    // A root, so that watermarks can be told apart in a zone that is nearly all free.
    const at = (pages) => 100 * Math.sqrt(Math.min(1, pages / Math.max(zone.managed, 1)));
    gauge.className = `gauge${zone.free <= zone.min ? " min" : zone.free <= zone.low ? " low" : ""}`;
    gauge.children[0].style.width = `${at(zone.free)}%`;
    [zone.min, zone.low, zone.high].forEach((mark, n) => {
      gauge.children[n + 1].style.left = `${at(mark)}%`;
    });
    gauge.title = `min ${size(zone.min)}, low ${size(zone.low)}, high ${size(zone.high)}; the scale is that of a square root`;
    const marks = element.children[2].children;
    marks[0].textContent = `min ${size(zone.min)}`;
    marks[1].textContent = `low ${size(zone.low)}`;
    marks[2].textContent = `high ${size(zone.high)}`;
    const x = at(zone.min);
    marks[0].style.left = `${x}%`;
    marks[1].style.left = `calc(${x}% + 95px)`;
    marks[2].style.left = `calc(${x}% + 190px)`;
  });
}

/// Reclaim's lists: which pages leave memory first.
function ages(all) {
  const kinds = [["fresh", "percpu", "cold, not looked at yet"], ["watched", "swap", "cold, watched: the next to leave"], ["hot", "slab", "in use"]];
  const build = () => make("div", {}, make("div", { class: "line quiet" }), make("div", { class: "ages" }, ...kinds.map(([, colour]) => {
    const part = make("i");
    part.style.background = `var(--${colour})`;
    return part;
  })), make("div", { class: "legend" }, ...kinds.map(([, colour, name]) => {
    const mark = make("span", { class: "dot" });
    mark.style.background = `var(--${colour})`;
    return make("span", {}, mark, `${name} `, make("b", { class: "n" }));
  })));
  each($("ages"), all, build, (element, lists) => {
    const sum = Math.max(1, lists.fresh + lists.watched + lists.hot);
    element.children[0].textContent = `Programs’ pages of node ${lists.node}, outside of control groups: ${size(lists.pages)}${lists.rounds ? "" : "; reclaim has not had to look at them yet"}`;
    element.children[1].hidden = element.children[2].hidden = !lists.rounds;
    kinds.forEach(([key], n) => {
      element.children[1].children[n].style.width = `${(100 * lists[key]) / sum}%`;
      element.children[2].children[n].querySelector("b").textContent = size(lists[key]);
    });
  });
}

function buddy(all) {
  const build = () => make("div", {}, make("div", { class: "quiet" }),
    make("div", { class: "orders" }, ...Array.from({ length: ORDERS }, (_, order) =>
      make("div", { class: "order" }, make("span", { class: "change" }), make("span", { class: "n" }), make("i"), make("small", {}, `${order}`)))));
  const pages = (zone, order) => zone.blocks[order] * 2 ** order;
  each($("buddy"), all, build, (element, zone, number) => {
    element.children[0].textContent = `Node ${zone.node}, ${zone.name}: blocks of 2^order pages; the bar is the memory in them`;
    const most = Math.max(1, ...zone.blocks.map((_, order) => pages(zone, order)));
    [...element.children[1].children].forEach((bar, order) => {
      const [change, text, level] = bar.children;
      const n = zone.blocks[order];
      const difference = n - (before?.[number]?.[order] ?? n);
      change.textContent = difference ? `${difference > 0 ? "+" : "−"}${count(Math.abs(difference))}` : "";
      change.className = `change ${difference > 0 ? "up" : "down"}`;
      text.textContent = count(n);
      level.style.height = `${Math.round(74 * Math.sqrt(pages(zone, order) / most))}px`;
      bar.title = `order ${order}: ${count(n)} free blocks of ${size(2 ** order)}, ${size(pages(zone, order))} in all`;
    });
  });
  before = all.map((zone) => zone.blocks);
}

function slabs(all) {
  const caches = all.filter((cache) => cache.pages).sort((a, b) => b.pages - a.pages || b.active - a.active);
  $("slab-note").textContent = `${size(caches.reduce((sum, cache) => sum + cache.pages, 0))} in ${caches.length} caches; the bar is how full their slabs are`;
  const columns = [["cache"], ["size", true], ["objects", true], ["of", true], ["slabs", true], ["memory", true], ["full"]];
  table($("slabs"), columns, caches.map((cache) => ({
    cells: [cache.name, cache.size || "", count(cache.active), count(cache.total), count(cache.slabs), size(cache.pages), cache.total ? meter(cache.active, cache.total) : ""],
  })));
}

function groups({ groups, processes, system, pressure }) {
  const below = (key) => groups.filter((group) => group.parent === key).sort((a, b) => b.usage - a.usage || (a.name < b.name ? -1 : 1));
  const rows = [];
  const used = system.managed - system.free;
  const waits = (of) => (of ? `${(of.some[0] / 100).toFixed(1)} %` : "");
  rows.push({ cells: ["/", processes.filter((process) => process.group === "0").length, size(used), meter(used, system.managed), "", waits(pressure)] });
  const add = (key, depth) => {
    if (depth > 40) return;
    for (const group of below(key)) {
      const [, , high, max] = group.limits;
      const limit = max ?? high;
      rows.push({
        cells: ["\u00a0".repeat(4 * depth) + group.name, group.members, size(group.usage), meter(group.usage, limit ?? system.managed, limit !== null && group.usage >= 0.95 * limit),
          [max !== null ? `max ${size(max)}` : "", high !== null ? `high ${size(high)}` : "", group.swap ? `${size(group.swap)} in swap` : ""].filter((part) => part).join(", "), waits(group.pressure)],
      });
      add(group.key, depth + 1);
    }
  };
  add("0", 1);
  table($("groups"), [["group"], ["processes", true], ["memory", true], [""], ["limits and swap"], ["waits", true]], rows);
}
