"use strict";
// Charts as inline SVG. Each is drawn for the width it has, and again when that changes; beside it
// stands a title for people who hear the page, and a table behind it.

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== ""));
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.flat(Infinity));
  return node;
}

// x with up to n significant digits.
function digits(x, n = 4) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size < 1e-5 || size >= 1e15) return x.toExponential(2);
  const text = x.toFixed(Math.min(9, Math.max(0, n - 1 - Math.floor(Math.log10(size)))));
  return size < 10000 ? text : text.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

// Of a scale: no zeros behind the point that say nothing.
function mark(x) {
  const text = digits(x, 5);
  return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
}

// Round numbers that cover [low, high].
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * unit).find(s => s >= rough * 0.999) || unit * 10;
  const marks = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) marks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  return marks;
}

function legend(entries) {
  return el("div", {class: "legend"}, entries.map(e =>
    el("span", {}, el("span", {class: "dot", style: `background:${e.color}`}), e.name)));
}

function table(heads, rows, textColumns = []) {
  const cell = (tag, content, i) => el(tag, textColumns.includes(i) ? {class: "text"} : {}, content);
  return el("div", {class: "scroll", tabindex: "0"}, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((h, i) => cell("th", h, i)))),
    el("tbody", {}, rows.map(r => el("tr", {}, r.map((c, i) => cell("td", c, i)))))));
}

// A table that is made when somebody opens it.
function tableBehind(heads, rows) {
  const details = el("details", {}, el("summary", {}, "Table"));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(table(heads, rows()));
  });
  return details;
}

const redraws = [];
let redrawDue = false;
addEventListener("resize", () => {
  if (redrawDue) return;
  redrawDue = true;
  requestAnimationFrame(() => { redrawDue = false; redraws.forEach(draw => draw()); });
});

// A figure whose `draw(width)` returns the children of its SVG and its height.
function figure(title, description, draw, ...extra) {
  const image = svg("svg", {role: "img", "aria-label": `${title}. ${description}`});
  const box = el("figure", {}, el("figcaption", {}, el("b", {}, title), description ? " " + description : ""), extra[0], image, extra.slice(1));
  const redraw = () => {
    const width = Math.max(260, Math.floor(image.parentNode.clientWidth || 960));
    const {height, parts} = draw(width);
    image.setAttribute("viewBox", `0 0 ${width} ${height}`);
    image.replaceChildren(svg("title", {}, title), ...parts);
  };
  redraws.push(redraw);
  return box;
}

// The frame of a chart of values over steps, and the functions from values to pixels.
function frame(width, height, xs, ys, unit) {
  const left = 52, right = 8, top = 8, bottom = 24;
  const x = v => left + (v - xs[0]) / Math.max(1e-12, xs[1] - xs[0]) * (width - left - right);
  const y = v => height - bottom - (v - ys[0]) / Math.max(1e-12, ys[1] - ys[0]) * (height - top - bottom);
  const parts = [];
  for (const t of ticks(ys[0], ys[1], 4)) {
    parts.push(svg("line", {class: "axis", x1: left, x2: width - right, y1: y(t), y2: y(t)}));
    parts.push(svg("text", {x: left - 7, y: y(t) + 4, "text-anchor": "end"}, mark(t)));
  }
  for (const t of ticks(xs[0], xs[1], width / 110)) {
    parts.push(svg("text", {x: x(t), y: height - 6, "text-anchor": x(t) > width - 40 ? "end" : "middle"}, mark(t)));
  }
  parts.push(svg("text", {x: left - 7, y: height - 6, "text-anchor": "end"}, unit));
  return {x, y, parts, top, bottom: height - bottom, left, right: width - right};
}

// series: {name, color, steps, values, points}. A null is a gap.
function lineChart(title, description, series, options = {}) {
  const values = series.flatMap(s => s.values.filter(v => v !== null));
  const steps = series.flatMap(s => s.steps);
  if (values.length === 0) return el("p", {class: "why"}, `${title}: no value is finite.`);
  let low = Math.min(...values), high = Math.max(...values);
  if (options.high) high = Math.max(Math.min(high, options.high), low);
  const margin = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  const ys = [options.zero ? 0 : low - margin, high + margin], xs = [Math.min(...steps), Math.max(...steps)];
  const draw = width => {
    const height = width < 500 ? 210 : 260;
    const f = frame(width, height, xs, ys, "step");
    // Later lines are thinner: what they cover stays visible.
    for (const [n, s] of series.entries()) {
      const at = s.values.map((v, i) => v === null ? null : [f.x(s.steps[i]).toFixed(1), f.y(Math.min(v, ys[1])).toFixed(1)]);
      if (s.points) {
        f.parts.push(...at.filter(p => p).map(p => svg("circle", {cx: p[0], cy: p[1], r: 3.4, fill: s.color, stroke: "var(--paper)"})));
        continue;
      }
      let path = "", pen = "M";
      for (const p of at) {
        if (p) { path += pen + p[0] + " " + p[1]; pen = "L"; } else pen = "M";
      }
      f.parts.push(svg("path", {d: path, fill: "none", stroke: s.color, "stroke-width": n === 0 && series.length > 1 ? 2.6 : 1.4, "stroke-linejoin": "round"}));
    }
    if (options.marks) f.parts.push(...options.marks(f));
    return {height, parts: f.parts};
  };
  const lines = series.filter(s => !s.points);
  const rows = () => series.flatMap(s => {
    const every = Math.max(1, Math.ceil(s.steps.length / 50));
    return s.steps.map((step, i) => [s.name, String(step), s.values[i] === null ? "not finite" : digits(s.values[i], 6)]).filter((_, i) => i % every === 0 || i === s.steps.length - 1);
  });
  return figure(title, description, draw, lines.length > 1 ? legend(lines) : null, tableBehind(["series", "step", "value"], rows));
}

// How often values fell into bins; marks: {value, name}.
function histogramChart(title, description, bins, color, unit, marks) {
  const most = Math.max(...bins.counts), edges = bins.edges;
  const draw = width => {
    const height = 180;
    const f = frame(width, height, [edges[0], edges[edges.length - 1]], [0, most], unit);
    bins.counts.forEach((count, i) => {
      if (count === 0) return;
      const x = f.x(edges[i]), w = Math.max(1, f.x(edges[i + 1]) - x - 1);
      f.parts.push(svg("rect", {x, y: f.y(count), width: w, height: f.bottom - f.y(count), fill: color}));
    });
    marks.forEach((m, i) => {
      const x = f.x(m.value);
      f.parts.push(svg("line", {x1: x, x2: x, y1: f.top, y2: f.bottom, stroke: "var(--ink)", "stroke-dasharray": "3 3"}));
      f.parts.push(svg("text", {x: x + 4, y: f.top + 10 + 14 * i}, m.name));
    });
    return {height, parts: f.parts};
  };
  const rows = () => bins.counts.map((c, i) => [`${digits(edges[i])} to ${digits(edges[i + 1])}`, String(c)]);
  return figure(title, description, draw, null, tableBehind([unit, "steps"], rows));
}

// Rows of stacked bars: {name, parts: [{name, value, color}]}, all to one scale.
function stackedBars(title, description, rows, unit, format) {
  const longest = Math.max(...rows.map(r => r.parts.reduce((sum, p) => sum + p.value, 0)));
  const names = new Map();
  rows.forEach(r => r.parts.forEach(p => { if (p.value > longest * 0.002) names.set(p.name, p.color); }));
  const named = rows.length > 1;
  const draw = width => {
    const bar = rows.length > 16 ? 12 : 24, gap = rows.length > 16 ? 3 : 8;
    const left = named ? Math.min(130, 12 + 7 * Math.max(...rows.map(r => r.name.length))) : 0;
    const x = v => v / longest * (width - left);
    const parts = [];
    rows.forEach((row, i) => {
      const top = i * (bar + gap);
      if (named) parts.push(svg("text", {x: left - 8, y: top + bar / 2 + 4, "text-anchor": "end"}, row.name));
      let sum = 0;
      for (const p of row.parts) {
        if (!(p.value > 0)) continue;
        const w = x(p.value), at = left + x(sum);
        parts.push(svg("rect", {x: at, y: top, width: Math.max(0.5, w), height: bar, fill: p.color, stroke: "var(--paper)", "stroke-width": w > 3 ? 1 : 0},
          svg("title", {}, `${row.name} ${p.name}: ${format(p.value)}`)));
        sum += p.value;
      }
    });
    return {height: rows.length * (bar + gap), parts};
  };
  const tableRows = () => rows.flatMap(r => r.parts.map(p => [r.name, p.name, format(p.value)]));
  return figure(title, description, draw, legend([...names].map(([name, color]) => ({name, color}))), tableBehind(["", "part", unit], tableRows));
}

// Areas on top of each other over steps; layers: {name, color, values}.
function stackedArea(title, description, steps, layers) {
  const sums = steps.map((_, i) => layers.reduce((sum, l) => sum + l.values[i], 0));
  const draw = width => {
    const height = width < 500 ? 190 : 230;
    const f = frame(width, height, [steps[0], steps[steps.length - 1]], [0, Math.max(...sums) * 1.03], "step");
    const below = steps.map(() => 0);
    for (const layer of layers) {
      const lower = below.map((v, i) => `${f.x(steps[i]).toFixed(1)} ${f.y(v).toFixed(1)}`).reverse();
      layer.values.forEach((v, i) => { below[i] += v; });
      const upper = below.map((v, i) => `${f.x(steps[i]).toFixed(1)} ${f.y(v).toFixed(1)}`);
      f.parts.push(svg("path", {d: `M${upper.join("L")}L${lower.join("L")}Z`, fill: layer.color, stroke: "var(--paper)", "stroke-width": 0.6}));
    }
    return {height, parts: f.parts};
  };
  const rows = () => steps.map((step, i) => [String(step), ...layers.map(l => digits(l.values[i]))]);
  return figure(title, description, draw, legend(layers), tableBehind(["step", ...layers.map(l => l.name)], rows));
}

// cividis (Nunez, Anderton, Renslow 2018), ten stops: from low to high, also for the colour-blind.
const kCividis = ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"]
  .map(hex => [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16)));
function cividis(share) {
  const at = Math.min(1, Math.max(0, share)) * (kCividis.length - 1), i = Math.min(Math.floor(at), kCividis.length - 2);
  return kCividis[i].map((c, k) => Math.round(c + (at - i) * (kCividis[i + 1][k] - c)));
}
const kScale = `linear-gradient(90deg, ${kCividis.map(c => `rgb(${c})`).join(",")})`;

// One cell a pixel, stretched: rows of values from low to high; null is left open.
function heatMap(title, names, columns, rows, low, high, format) {
  const canvas = el("canvas", {width: columns.length, height: rows.length, role: "img", "aria-label": `${title}: ${rows.length} layers over ${columns.length} counted steps`});
  canvas.style.height = Math.max(90, Math.min(260, rows.length * 9)) + "px";
  const context = canvas.getContext("2d"), image = context.createImageData(columns.length, rows.length);
  rows.forEach((row, r) => row.forEach((v, c) => {
    if (v === null) return;
    image.data.set([...cividis((v - low) / Math.max(1e-12, high - low)), 255], 4 * (r * columns.length + c));
  }));
  context.putImageData(image, 0, 0);
  const hint = el("span", {}, `step ${columns[0]}`);
  canvas.addEventListener("mousemove", event => {
    const box = canvas.getBoundingClientRect();
    const c = Math.min(columns.length - 1, Math.floor((event.clientX - box.left) / box.width * columns.length));
    const r = Math.min(rows.length - 1, Math.floor((event.clientY - box.top) / box.height * rows.length));
    if (rows[r] !== undefined) hint.textContent = `${names[r]}, step ${columns[c]}: ${rows[r][c] === null ? "not counted" : format(rows[r][c])}`;
  });
  return el("figure", {class: "map"}, el("figcaption", {}, el("b", {}, title)), canvas,
    el("div", {class: "ends"}, hint, el("span", {}, `${columns[columns.length - 1]}`)));
}
