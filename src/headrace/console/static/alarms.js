// Alarms: keys of the list, the drawer's Esc, and charts whose colours are the theme's.
"use strict";
hr.alarms = (() => {
  let current = "";
  const plots = new Map(); // element id -> options
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--hr-" + name).trim();
  const rows = () => [...document.querySelectorAll("tr[data-alarm]")];

  // "var:bad" anywhere in the options is the theme's colour of that name.
  function coloured(value) {
    if (typeof value === "string") return value.startsWith("var:") ? css(value.slice(4)) : value;
    if (Array.isArray(value)) return value.length && typeof value[0] === "number" ? value : value.map(coloured);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
    return value;
  }

  function themed(options) {
    const text = { color: css("text-3") }, line = { lineStyle: { color: css("line") } };
    const axis = (a) => ({ ...a, axisLabel: { ...text, ...a.axisLabel }, nameTextStyle: { ...text, ...a.nameTextStyle },
      axisLine: { lineStyle: { color: css("line-strong") } }, splitLine: { ...line, ...a.splitLine } });
    const each = (a) => (Array.isArray(a) ? a.map(axis) : axis(a || {}));
    const found = coloured(options);
    found.textStyle = { color: css("text-2"), fontFamily: "inherit" };
    found.tooltip = { backgroundColor: css("raised"), borderColor: css("line"), textStyle: { color: css("text"), fontSize: 12.5 }, transitionDuration: 0, ...found.tooltip };
    if (found.legend) found.legend = { textStyle: { color: css("text-2") }, ...found.legend };
    found.xAxis = each(found.xAxis); found.yAxis = each(found.yAxis);
    return found;
  }

  async function draw(elementId, options) {
    for (let i = 0; i < 400; i++) {
      const component = window.getElement ? getElement(elementId) : null;
      if (component && component.chart) {
        plots.set(elementId, options);
        component.chart.setOption(themed(options), { notMerge: true });
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
  }

  window.addEventListener("hr-theme", () => {
    for (const [id, options] of plots) {
      const component = getElement(id);
      if (component && component.chart) component.chart.setOption(themed(options), { notMerge: true });
      else plots.delete(id);
    }
  });

  function move(step) {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.dataset.alarm === current);
    const row = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + step))];
    current = row.dataset.alarm;
    mark();
    row.scrollIntoView({ block: "nearest" });
  }

  function mark() {
    for (const row of rows()) {
      const on = row.dataset.alarm === current;
      if (row.classList.contains("cur") !== on) row.classList.toggle("cur", on);
      if (on && document.activeElement === document.body) row.focus({ preventScroll: true });
    }
  }

  function key(event) {
    const inField = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable], .q-dialog");
    if (event.key === "Escape" && !event.target.closest(".q-dialog")) {
      const close = document.querySelector(".hr-drawer:not(.hr-hide) [data-drawer-close]");
      if (inField) event.target.blur(); else if (close) close.click();
      return;
    }
    if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
    const focused = event.target.closest("tr[data-alarm]");
    if (focused) current = focused.dataset.alarm;
    const row = rows().find((r) => r.dataset.alarm === current);
    const press = (selector) => { const part = row && row.querySelector(selector); if (part) part.click(); };
    const bulk = (name) => { const part = document.querySelector(".hr-bulk:not(.hr-hide) [data-bulk=" + name + "]"); if (part) part.click(); return Boolean(part); };
    const what = {
      j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
      x: () => press("[data-choose]"), " ": () => press("[data-choose]"),
      a: () => bulk("acknowledge") || press("[data-act=acknowledge]"),
      s: () => bulk("shelve"),
      Enter: () => { if (row && !event.target.closest("button, a, input")) row.click(); else return false; },
      "/": () => { const field = document.querySelector(".hr-alsearch input"); if (field) field.focus(); },
    }[event.key];
    if (!what || (event.key === " " && event.target.closest("button, summary, input"))) return;
    if (what() !== false) event.preventDefault();
  }

  document.addEventListener("keydown", key);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-filters]");
    if (button) button.classList.toggle("on", button.closest(".hr-filters").classList.toggle("open"));
  });
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest && event.target.closest("tr[data-alarm]");
    if (row) { current = row.dataset.alarm; mark(); }
  });
  new MutationObserver(mark).observe(document.body, { childList: true, subtree: true });
  return { draw };
})();
