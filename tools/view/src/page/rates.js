// What happens a second, from the differences of counters.

import { $, colours, count, make, surface, tip } from "./common.js";

const SPAN = 120e9; // Nanoseconds that are shown.
const HEIGHT = 64;
const CHARTS = [
  { name: "page faults", lines: [["pgfault", "anon", "all"], ["pgfault_copy", "slab", "copies on write"]] },
  { name: "frames", lines: [["pgalloc", "anon", "taken"], ["pgfree", "object", "given back"]] },
  { name: "swap", lines: [["pswpout", "swap", "out"], ["pswpin", "anon", "in"]] },
  { name: "reclaim", lines: [["pgsteal_kswapd", "object", "by kswapd"], ["pgsteal_direct", "warn", "by those who wait"]] },
  { name: "compaction", lines: [["pgmigrate_success", "table", "pages moved"], ["compact_migrate_scanned", "slab", "scanned"]] },
  { name: "files on disks", lines: [["pgpgin_pages", "object", "read"], ["nr_written", "kernel", "written"]] },
  { name: "TLB invalidations", lines: [["tlb_flush_page", "accent", "of pages"], ["tlb_flush_asid", "slab", "of address spaces"]] },
  { name: "waits for memory", unit: "%", lines: [["some", "warn", "some thread, of 10 s"], ["full", "kernel", "all threads"]] },
];

let history = []; // { at, values by counter }

export function start() {
  for (const chart of CHARTS) {
    chart.canvas = make("canvas", { role: "img", "aria-label": chart.name });
    chart.now = make("span", { class: "n quiet" });
    $("rates").append(make("div", { class: "rate" }, make("div", { class: "line" }, make("b", {}, chart.name), chart.now), chart.canvas));
    tip(chart.canvas, () => chart.lines.map(([counter, colour, name]) => {
      const mark = make("span", { class: "dot" });
      mark.style.background = colours()[colour];
      return make("div", {}, mark, `${name}: ${show(latest(counter), chart.unit)}${chart.unit ? "" : " a second"} (${counter})`);
    }));
  }
}

const show = (value, unit) => (unit ? `${value.toFixed(1)} ${unit}` : value >= 1e5 ? `${count(value / 1000)}k` : count(value));

/// The points of a line: [time, rate].
function points(counter) {
  if (counter === "some" || counter === "full") return history.map(({ at, waits }) => [at, waits?.[counter] ?? 0]);
  const line = [];
  for (let n = 1; n < history.length; n++) {
    const [a, b] = [history[n - 1], history[n]];
    if (b.at > a.at) line.push([b.at, (1e9 * Math.max(0, b.counters[counter] - a.counters[counter])) / (b.at - a.at)]);
  }
  return line;
}

const latest = (counter) => points(counter).at(-1)?.[1] ?? 0;

export function draw({ at, counters, pressure }) {
  // A recording may go back.
  history = history.filter((point) => point.at < at && point.at > at - SPAN);
  history.push({ at, counters, waits: pressure && { some: pressure.some[0] / 100, full: pressure.full[0] / 100 } });
  for (const chart of CHARTS) {
    const lines = chart.lines.map(([counter]) => points(counter));
    const most = Math.max(chart.unit ? 5 : 10, ...lines.flat().map(([, value]) => value));
    chart.now.textContent = lines.map((line) => show(line.at(-1)?.[1] ?? 0, chart.unit)).join(" · ");
    const { context, width } = surface(chart.canvas, HEIGHT);
    const all = colours();
    const span = Math.min(SPAN, Math.max(20e9, at - history[0].at));
    const x = (time) => width - ((at - time) / span) * width;
    const y = (value) => HEIGHT - 3 - ((HEIGHT - 16) * value) / most;
    context.strokeStyle = all.line;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, HEIGHT - 2.5);
    context.lineTo(width, HEIGHT - 2.5);
    context.moveTo(0, Math.round(y(most)) + 0.5);
    context.lineTo(width, Math.round(y(most)) + 0.5);
    context.stroke();
    context.fillStyle = all.quiet;
    context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    context.fillText(show(most, chart.unit), 0, 10);
    lines.forEach((line, n) => {
      if (!line.length) return;
      const colour = all[chart.lines[n][1]];
      context.beginPath();
      line.forEach(([time, value], k) => (k ? context.lineTo(x(time), y(value)) : context.moveTo(x(time), y(value))));
      context.strokeStyle = colour;
      context.lineWidth = 1.6;
      context.stroke();
      context.lineTo(x(line.at(-1)[0]), HEIGHT - 3);
      context.lineTo(x(line[0][0]), HEIGHT - 3);
      context.globalAlpha = 0.14;
      context.fillStyle = colour;
      context.fill();
      context.globalAlpha = 1;
    });
  }
}
