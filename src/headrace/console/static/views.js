// Views of apps: colours of limits, gauges and levels follow live values; charts take the page's colours.
"use strict";
hr.views = (() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const tick = (v) => (Math.abs(v) < 1e6 ? String(Number(Number(v).toPrecision(6))) : hr.format(v, 4));
  const functions = { "fn:format": (v) => (v === null || v === undefined ? "–" : hr.format(v)), "fn:tick": tick };
  const charts = new Map(); // element id -> options as the server gave them

  function resolved(value) {
    if (typeof value === "string") return value.startsWith("--hr-") ? css(value) : functions[value] || value;
    if (Array.isArray(value)) return value.map(resolved);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolved(v)]));
    return value;
  }

  async function chart(id, options) {
    charts.set(id, options);
    for (let i = 0; i < 400; i++) {
      const component = window.getElement ? getElement(id) : null;
      if (component && component.chart) { component.chart.setOption(resolved(options), { notMerge: true }); return; }
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
  }

  function state(limits, v) {
    let found = "good";
    for (const [at, name] of limits) if (v >= at) found = name;
    return found;
  }

  function follow(element) {
    const holder = element.closest("[data-tag]"), sample = holder && hr.latest.get(holder.dataset.tag);
    if (!sample || sample.v === null || sample.v === undefined) return;
    const data = element.dataset, share = (pair) => Math.max(0, Math.min(1, (sample.v - pair[0]) / (pair[1] - pair[0] || 1)));
    if (data.limits) data.state = sample.s >>> 30 >= 2 ? "unknown" : state(JSON.parse(data.limits), sample.v);
    if (data.gauge) {
      const arc = element.querySelector(".now");
      if (arc) arc.style.strokeDasharray = 100 * share(JSON.parse(data.gauge)) + " 200";
    }
    if (data.level) element.style.transform = "scaleY(" + share(JSON.parse(data.level)) + ")";
    if (data.visible) element.style.display = sample.v ? "" : "none";
    if (data.unit) { // the number was written by headrace.js
      const text = hr.format(sample.v) + (data.unit ? " " + data.unit : "");
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function newest(holder) {
    const sample = holder && holder.dataset.tag && hr.latest.get(holder.dataset.tag);
    return sample && sample.s >>> 30 < 2 ? sample : null;
  }

  function ordered(tiles) { // those without a value come last
    const falling = tiles.dataset.order === "highest" ? -1 : 1;
    const found = [...tiles.children].map((tile) => {
      const sample = newest(tile);
      return [sample && sample.v !== null ? falling * sample.v : Infinity, tile];
    });
    found.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)).forEach(([, tile], place) => { tile.style.order = place; });
  }

  function parted(element) {
    const sample = newest(element), text = (sample && sample.x) || "";
    if (element.dataset.shown === text) return;
    element.dataset.shown = text;
    const found = [...text.matchAll(/([^,()]+) \((\d+) %\)/g)].slice(0, 12);
    const rows = found.map(([, name, share]) => {
      const row = document.createElement("div"), label = document.createElement("span"), bar = document.createElement("i"), number = document.createElement("b");
      label.textContent = name.trim();
      number.textContent = share + " %";
      bar.style.setProperty("--hr-share", Math.min(100, Number(share)) + "%");
      row.append(label, number, bar);
      return row;
    });
    if (!rows.length) {
      const none = document.createElement("span");
      none.className = "hr-dim";
      none.textContent = text || element.dataset.bars;
      rows.push(none);
    }
    element.replaceChildren(...rows);
  }

  const all = "[data-limits],[data-gauge],[data-level],[data-visible],[data-unit]";
  function refresh() {
    for (const element of document.querySelectorAll(all)) follow(element);
    for (const tiles of document.querySelectorAll("[data-order]")) ordered(tiles);
    for (const element of document.querySelectorAll("[data-bars]")) parted(element);
  }
  hr.listeners.add(refresh);
  window.addEventListener("hr-theme", () => { for (const [id, options] of charts) chart(id, options); });
  setInterval(refresh, 1000); // what was drawn after its sample came
  return { chart };
})();
