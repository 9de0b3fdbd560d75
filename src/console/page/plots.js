"use strict";
// Draws points over time as lines or as a stack of areas. What is named here is used by page.js.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 520, HEIGHT = 150, LEFT = 54, RIGHT = 6, TOP = 6, BOTTOM = 20;
/// How much of the past is drawn.
const WINDOW_MS = 15 * 60 * 1000;

const drawn = (name, attributes, text) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
};

const number = value => {
  const size = Math.abs(value);
  // Counts are told whole.
  if (Number.isInteger(value) && size < 1e9) return value.toLocaleString("en-US");
  if (size >= 1e9) return (value / 1e9).toPrecision(3) + " G";
  if (size >= 1e6) return (value / 1e6).toPrecision(3) + " M";
  if (size >= 1e4) return Math.round(value).toLocaleString("en-US");
  return Number(value.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 3 });
};
const percent = value => Math.round(value * 100) + " %";
const span = ms => {
  const s = ms / 1000;
  if (s < 10) return (Math.round(s * 10) / 10) + " s";
  if (s < 120) return Math.round(s) + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  if (s < 172800) return Math.round(s / 3600) + " h";
  return Math.round(s / 86400) + " d";
};
const clock = ms => new Date(ms).toLocaleTimeString("en-GB");

// The least of 1, 2 and 5 times a power of ten that is not below a value.
const top_of = value => {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map(n => n * power).find(n => n >= value * 0.999) ?? 10 * power;
};

// One plot: { id, title, series: [{ name, of(point) }], show(value), stacked, most }.
class Plot {
  constructor(plan) {
    this.plan = plan;
    this.chosen = null;
    this.figure = document.createElement("figure");
    this.figure.className = "plot";
    this.figure.id = "plot-" + plan.id;
    const caption = document.createElement("figcaption"), title = document.createElement("h3");
    title.textContent = plan.title;
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.values = plan.series.map((series, at) => {
      const item = document.createElement("li"), mark = document.createElement("i"), value = document.createElement("b");
      mark.className = "f" + at % 9;
      item.append(mark, series.name + " ", value);
      this.legend.append(item);
      return value;
    });
    caption.append(title, this.legend);
    this.svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": plan.title });
    this.figure.append(caption, this.svg);
    this.svg.addEventListener("pointermove", event => {
      const box = this.svg.getBoundingClientRect();
      this.chosen = (event.clientX - box.left) / box.width;
      this.draw();
    });
    this.svg.addEventListener("pointerleave", () => { this.chosen = null; this.draw(); });
  }

  show(points, now) {
    [this.points, this.now] = [points.filter(point => point.at_ms >= now - WINDOW_MS), now];
    this.draw();
  }

  draw() {
    const { plan, points, now } = this, series = plan.series;
    if (!points) return;
    // Pixels, so that texts keep their shape whatever the width.
    const width = Math.max(200, this.svg.clientWidth || WIDTH);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const begin = Math.max(now - WINDOW_MS, Math.min(points.length ? points[0].at_ms : now, now - 60000));
    const x = ms => LEFT + (ms - begin) / (now - begin) * (width - LEFT - RIGHT);
    const whole = point => plan.stacked ? series.reduce((sum, one) => sum + one.of(point), 0) : Math.max(...series.map(one => one.of(point)));
    const most = plan.most ?? top_of(points.reduce((most, point) => Math.max(most, whole(point)), 0));
    const y = value => HEIGHT - BOTTOM - Math.min(1, value / most) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const part of [0, 0.5, 1]) {
      const at = y(most * part);
      parts.push(drawn("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      parts.push(drawn("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, plan.show(most * part)));
    }
    for (const part of [0, 0.5, 1]) {
      const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
      parts.push(drawn("text", { x: x(begin + (now - begin) * part), y: HEIGHT - 4, "text-anchor": anchor }, clock(begin + (now - begin) * part)));
    }
    const path = values => points.map((point, at) => `${at ? "L" : "M"}${x(point.at_ms).toFixed(1)} ${y(values[at]).toFixed(1)}`).join("");
    if (points.length > 1) {
      let below = points.map(() => 0);
      series.forEach((one, at) => {
        if (plan.stacked) {
          const above = points.map((point, i) => below[i] + one.of(point));
          const back = points.map((point, i) => `L${x(point.at_ms).toFixed(1)} ${y(below[i]).toFixed(1)}`).reverse().join("");
          parts.push(drawn("path", { class: `area f${at % 9}`, d: path(above) + back + "Z" }));
          below = above;
        } else {
          parts.push(drawn("path", { class: `line s${at % 9}`, d: path(points.map(one.of)) }));
        }
      });
    }
    const place = this.chosen === null ? now : begin + (this.chosen * width - LEFT) / (width - LEFT - RIGHT) * (now - begin);
    const point = points.reduce((best, point) => best && Math.abs(best.at_ms - place) <= Math.abs(point.at_ms - place) ? best : point, null);
    if (point && this.chosen !== null) {
      parts.push(drawn("line", { class: "cursor", x1: x(point.at_ms), x2: x(point.at_ms), y1: TOP, y2: HEIGHT - BOTTOM }));
      parts.push(drawn("text", { x: Math.min(width - 60, x(point.at_ms) + 4), y: TOP + 10 }, clock(point.at_ms)));
    }
    series.forEach((one, at) => { this.values[at].textContent = point ? plan.show(one.of(point)) : "–"; });
    this.svg.replaceChildren(...parts);
  }
}
