// Tells what a reader of the page sees, as JSON in the outermost page.
{
  const box = element => { const r = element.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const shown = element => { const r = element.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "none";
  };
  const overlapping = elements => {
    const boxes = elements.filter(shown).map(box).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    return boxes.some((a, i) => boxes.slice(i + 1).some(b => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]));
  };
  const plots = [...document.querySelectorAll("figure.plot")].map(figure => {
    const area = figure.querySelector(".area"), [left, top, right, bottom] = box(area);
    area.dispatchEvent(new PointerEvent("pointermove", { clientX: (left + right) / 2, clientY: (top + bottom) / 2 }));
    const tip = figure.querySelector(".tip"), said = tip.hidden ? "" : tip.textContent, tipBox = box(tip);
    area.dispatchEvent(new PointerEvent("pointerleave"));
    return {
      id: figure.id, box: [left, top, right, bottom], tip: said, tip_box: tipBox, tip_left: !tip.hidden,
      ticks_overlap: overlapping([...area.querySelectorAll("text.x, text.y")]),
      texts_out: [...area.querySelectorAll("text")].filter(shown).filter(text => box(text)[0] < 0 || box(text)[2] > innerWidth).map(t => t.textContent),
      series: [...area.querySelectorAll("path.line, path.band")].map(path => {
        const extent = path.getBBox();
        return { name: path.textContent, width: extent.width, height: extent.height, stroke: getComputedStyle(path).stroke, fill: getComputedStyle(path).fill, fill_opacity: Number(getComputedStyle(path).fillOpacity) };
      }),
    };
  });
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "title"].includes(element.tagName) || !shown(element)) continue;
    const style = getComputedStyle(element);
    const color = element instanceof SVGElement ? style.fill : style.color;
    texts.push({ text: walker.currentNode.data.trim().slice(0, 40), color, behind: behind(element), box: box(element), size: parseFloat(style.fontSize) });
  }
  const told = {
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    problems: window.problems,
    requests: performance.getEntriesByType("resource").map(entry => entry.name),
    width: innerWidth, scroll_width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    plots, texts,
  };
  const pre = document.createElement("pre");
  pre.id = "probe";
  pre.hidden = true;
  pre.textContent = JSON.stringify(told).replace(/[<>&]/g, c => "\\u00" + c.charCodeAt(0).toString(16));
  window.parent.document.body.append(pre);
}
