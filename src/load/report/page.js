"use strict";
// Shows the values under the pointer, or those that the arrow keys choose, in every plot.
for (const figure of document.querySelectorAll("figure.plot")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const area = figure.querySelector(".area"), cursor = figure.querySelector(".cursor"), tip = figure.querySelector(".tip");
  const places = [...new Set(data.at.flat())].sort((a, b) => a - b);
  let chosen = -1;

  const nearest = (sorted, place) => {
    let low = 0, high = sorted.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < place) low = middle; else high = middle;
    }
    return high > 0 && place - sorted[low] < sorted[high] - place ? low : high;
  };
  const number = value => value.toLocaleString("en-US", { maximumSignificantDigits: Math.abs(value) < 1000 ? 3 : 21, maximumFractionDigits: 0, roundingPriority: "morePrecision" });
  const value = v => v === null || v === undefined ? "–"
    : data.unit === "ms" && Math.abs(v) >= 999.5 ? number(v / 1000) + " s" : number(v) + " " + data.unit;
  const two = n => String(n).padStart(2, "0");
  const clock = s => {
    const whole = Math.floor(s + 1e-6), hours = Math.floor(whole / 3600), rest = s - whole;
    const minutes = Math.floor(whole / 60) % 60, part = rest > 0.05 ? rest.toFixed(1).slice(1) : "";
    return (hours ? hours + ":" + two(minutes) : minutes) + ":" + two(whole % 60) + part;
  };
  const x = v => data.kind === "time" ? clock(v) : Number(v.toPrecision(10)) + " %";

  const show = at => {
    chosen = Math.max(0, Math.min(places.length - 1, at));
    const place = places[chosen];
    if (place === undefined) return;
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.removeAttribute("hidden");
    tip.replaceChildren();
    const head = document.createElement("b");
    tip.append(head);
    for (const series of data.series) {
      const at = nearest(data.at[series.x], place);
      if (at < 0) continue;
      if (!head.textContent || data.at[series.x][at] === place) head.textContent = x(data.x[series.x][at]);
      const line = document.createElement("div");
      line.textContent = series.n + ": " + value(series.v[at]);
      tip.append(line);
    }
    tip.hidden = false;
    tip.style.left = 0; // for its whole width
    const room = area.getBoundingClientRect().width, width = tip.offsetWidth, left = place / 1000 * room;
    tip.style.left = Math.max(0, Math.min(room - width, left > room / 2 ? left - width - 12 : left + 12)) + "px";
  };
  const hide = () => { tip.hidden = true; cursor.setAttribute("hidden", ""); };

  const follow = event => {
    const box = area.getBoundingClientRect();
    show(nearest(places, (event.clientX - box.left) / box.width * 1000));
  };
  area.addEventListener("pointermove", follow);
  area.addEventListener("pointerdown", follow);
  area.addEventListener("pointerleave", hide);
  area.addEventListener("blur", hide);
  area.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    show(chosen < 0 ? 0 : chosen + step);
  });
}
