// The trend: pan and zoom by hand, the server reduces for each zoom; live values are appended.
"use strict";
hr.trend = (() => {
  let chart = null, tags = [], lines = [], view = null, live = true, holder = null;
  let loaded = null, drawn = false, timer = 0, asked = 0, pointers = new Map(), settings = {};
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--hr-" + name).trim();
  const span = () => view.end - view.start;

  async function init(elementId, options) {
    settings = options;
    for (let i = 0; i < 400; i++) {
      const component = window.getElement ? getElement(elementId) : null;
      if (component && component.chart) { chart = component.chart; holder = component.$el; break; }
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
    if (!chart) return;
    readUrl();
    bind();
    window.addEventListener("hr-theme", () => draw(true));
    hr.listeners.add(onLive);
    setInterval(tick, 250);
    setTags(options.tags);
  }

  function readUrl() {
    const query = new URLSearchParams(location.search);
    const end = Number(query.get("end")), start = Number(query.get("start"));
    if (start && end > start) { view = { start, end }; live = false; }
    else { const s = Number(query.get("span")) || 900000; view = { start: hr.now() - s, end: hr.now() }; live = true; }
    markRange();
  }

  function url() {
    const query = new URLSearchParams();
    query.set("tags", tags.map((t) => t.tag_id).join(","));
    if (live) query.set("span", Math.round(span()));
    else { query.set("start", Math.round(view.start)); query.set("end", Math.round(view.end)); }
    return location.pathname + "?" + decodeURIComponent(query.toString());
  }

  function setTags(list) {
    tags = list;
    hr.follow(tags.map((t) => t.tag_id));
    lines = []; loaded = null;
    load(0);
    if (!tags.length && chart) draw(true);
  }

  function load(delay) {
    clearTimeout(timer);
    timer = setTimeout(fetchNow, delay);
    history.replaceState(null, "", url());
  }

  async function fetchNow() {
    if (!tags.length) { lines = []; draw(true); return; }
    const margin = span() * 0.5, mine = ++asked;
    const start = view.start - margin, end = view.end + (live ? 0 : margin);
    const points = Math.round(Math.max(200, holder.clientWidth) * 2 * (live ? 0.75 : 1));
    const query = new URLSearchParams({ tag_ids: tags.map((t) => t.tag_id).join(","), start_ms: start, end_ms: live ? Math.max(end, hr.now() + 1000) : end, points: Math.min(4000, points) });
    const answer = await fetch("/api/v1/trend?" + query).catch(() => null);
    if (mine !== asked || !answer) return;
    if (!answer.ok) { const e = await answer.json().catch(() => ({})); note((e.code || "") + " " + (e.what || answer.status)); return; }
    lines = (await answer.json()).tags;
    loaded = { start, end: live ? Infinity : end, span: span() };
    draw(true);
  }

  function onLive(ids) {
    const changed = new Set(ids);
    let touched = false;
    for (const line of lines) {
      if (!changed.has(line.tag_id)) continue;
      const sample = hr.latest.get(line.tag_id), last = line.t[line.t.length - 1];
      if (!sample || sample.v === null || (last !== undefined && sample.t <= last)) continue;
      if (sample.s >>> 30 >= 2) continue;
      line.t.push(sample.t); line.v.push(sample.v); touched = true;
    }
    if (touched && live) draw(false);
  }

  function tick() {
    if (!live || !view || !chart || pointers.size) return;
    const s = span();
    view = { start: hr.now() - s, end: hr.now() };
    const px = s / Math.max(200, holder.clientWidth);
    if (px < 1000 || Math.floor(hr.now() / px) !== tick.last) { tick.last = Math.floor(hr.now() / px); axis(); }
    if (loaded && (view.start < loaded.start || lines.some((l) => l.t.length > 12000))) load(0);
  }

  // Before the first whole drawing there is no axis that could move.
  function axis() { if (drawn) chart.setOption({ xAxis: { min: view.start, max: view.end } }, { lazyUpdate: true }); }

  function moved(delay) {
    if (live) { live = false; }
    markRange();
    axis();
    const inside = loaded && view.start >= loaded.start && view.end <= loaded.end;
    const same = loaded && span() > loaded.span * 0.8 && span() < loaded.span * 1.25;
    if (!inside || !same) load(delay);
    else history.replaceState(null, "", url());
  }

  function setSpan(ms) { live = true; view = { start: hr.now() - ms, end: hr.now() }; markRange(); axis(); load(0); }
  function setLive(on) {
    live = on;
    if (on) { const s = span(); view = { start: hr.now() - s, end: hr.now() }; axis(); }
    markRange(); load(0);
  }

  function markRange() {
    for (const button of document.querySelectorAll("[data-span]")) button.classList.toggle("on", live && Math.abs(Number(button.dataset.span) - span()) < 1000);
    const button = document.querySelector("[data-live]");
    if (button) button.classList.toggle("on", live);
  }

  function note(text) { const e = document.querySelector(".hr-plot-note"); if (e) e.textContent = text; }

  function draw(full) {
    if (!chart) return;
    const units = [...new Set(lines.map((l) => l.unit))];
    const narrow = holder.clientWidth < 560;
    if (full) drawAxes(units, narrow);
    else chart.setOption({ series: lines.map((l) => ({ data: pairs(l) })) }, { lazyUpdate: true });
    const total = lines.reduce((sum, l) => sum + l.samples, 0);
    if (lines.length) note(total === 0 ? settings.texts.none : lines.every((l) => l.raw) ? settings.texts.raw : settings.texts.reduced.replace("{n}", total.toLocaleString()));
    else note("");
    const empty = document.querySelector("[data-trend-empty]");
    if (empty) empty.classList.toggle("hr-hide", tags.length > 0);
  }

  const pairs = (l) => l.t.map((t, k) => [t, l.v[k]]);

  function drawAxes(units, narrow) {
    const text = css("text-3"), grid = css("line");
    const yAxis = (units.length ? units : [""]).map((unit, k) => {
      const mine = lines.findIndex((l) => l.unit === unit);
      return {
        show: !narrow || k < 2,
        type: "value", scale: true, name: unit, position: k % 2 ? "right" : "left", offset: (k >> 1) * 56,
        nameTextStyle: { color: units.length > 1 ? css("series-" + Math.max(0, mine)) : text, fontSize: 12, align: k % 2 ? "right" : "left" },
        axisLabel: { color: text, fontSize: 11, hideOverlap: true, formatter: (v) => Math.abs(v) < 1e6 ? String(Number(v.toPrecision(8))) : hr.format(v, 4) },
        axisLine: { show: units.length > 1, lineStyle: { color: css("series-" + Math.max(0, mine)) } },
        splitLine: { show: k === 0, lineStyle: { color: grid } },
      };
    });
    drawn = true;
    const sides = narrow ? [1, units.length > 1 ? 1 : 0] : [Math.ceil(units.length / 2), Math.floor(units.length / 2)];
    chart.setOption({
      animation: false, useUTC: false,
      grid: { left: (narrow ? 44 : 56) * Math.max(1, sides[0]), right: sides[1] ? (narrow ? 44 : 56) * sides[1] : 18, top: 36, bottom: 30 },
      xAxis: { type: "time", min: view.start, max: view.end, axisLabel: { color: text, fontSize: 11, hideOverlap: true },
        axisLine: { lineStyle: { color: css("line-strong") } }, splitLine: { show: true, lineStyle: { color: grid } }, axisPointer: { label: { show: false } } },
      yAxis,
      tooltip: { trigger: "axis", confine: true, transitionDuration: 0, backgroundColor: css("raised"), borderColor: css("line"), textStyle: { color: css("text"), fontSize: 12.5 },
        axisPointer: { type: "line", lineStyle: { color: css("text-3") } }, formatter: tip },
      series: lines.map((l, i) => ({
        type: "line", name: l.path, yAxisIndex: units.indexOf(l.unit), data: pairs(l), showSymbol: l.t.length < 60, symbolSize: 4,
        lineStyle: { width: 1.3, color: css("series-" + i) }, itemStyle: { color: css("series-" + i) }, connectNulls: false, emphasis: { disabled: true },
        step: l.t.length < 4 ? "end" : false,
        markArea: { silent: true, data: l.bad.map(([a, b, s]) => [{ xAxis: a, itemStyle: { color: css(s === 1 ? "warn" : "bad"), opacity: 0.13 } }, { xAxis: b }]) },
      })),
    }, { notMerge: true });
  }

  function tip(items) {
    if (!items.length) return "";
    const at = new Date(items[0].value[0]);
    const when = at.toLocaleString(document.documentElement.lang === "zh" ? "zh-CN" : "en-GB") + "." + String(at.getMilliseconds()).padStart(3, "0");
    const esc = (s) => String(s).replace(/[&<>"]/g, (c) => "&#" + c.charCodeAt(0) + ";");
    return '<div style="opacity:.7;margin-bottom:3px">' + when + "</div>" + items.filter((i) => i.value[1] !== null).map((i) => {
      const l = lines[i.seriesIndex];
      return '<div style="display:flex;gap:14px;justify-content:space-between"><span>' + i.marker + esc(title(l)) + '</span><b>' + hr.format(i.value[1]) + " " + esc(l.unit) + "</b></div>";
    }).join("");
  }

  function title(l) {
    const zh = document.documentElement.lang === "zh" && l.title_zh;
    return zh || l.title || l.path.split("/").slice(-2).join(" / ");
  }

  function bind() {
    const at = (x) => { const left = chart.convertToPixel({ xAxisIndex: 0 }, view.start), right = chart.convertToPixel({ xAxisIndex: 0 }, view.end); return view.start + ((x - left) / (right - left)) * span(); };
    const box = () => holder.getBoundingClientRect();
    const zoom = (center, factor) => {
      const size = Math.min(Math.max(span() * factor, 50), 3.2e12), part = (center - view.start) / span();
      view = { start: center - size * part, end: center + size * (1 - part) };
      moved(120);
    };
    holder.style.touchAction = "pan-y";
    holder.addEventListener("wheel", (e) => { e.preventDefault(); zoom(at(e.clientX - box().left), Math.exp(Math.max(-1, Math.min(1, e.deltaY / 250)))); }, { passive: false });
    holder.addEventListener("pointerdown", (e) => { pointers.set(e.pointerId, e.clientX); });
    window.addEventListener("pointermove", (e) => {
      if (!pointers.has(e.pointerId)) return;
      const before = pointers.get(e.pointerId);
      if (pointers.size === 1) {
        if (Math.abs(e.clientX - before) < 3) return;
        const shift = at(before - box().left) - at(e.clientX - box().left);
        view = { start: view.start + shift, end: view.end + shift };
        pointers.set(e.pointerId, e.clientX);
        moved(150);
      } else if (pointers.size === 2) {
        const other = [...pointers].find(([id]) => id !== e.pointerId)[1];
        const was = Math.abs(before - other), is = Math.abs(e.clientX - other);
        pointers.set(e.pointerId, e.clientX);
        if (was > 8 && is > 8) zoom(at((e.clientX + other) / 2 - box().left), was / is);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, (e) => pointers.delete(e.pointerId));
    holder.addEventListener("dblclick", (e) => zoom(at(e.clientX - box().left), 0.4));
    document.addEventListener("click", (e) => {
      const spanButton = e.target.closest("[data-span]"), liveButton = e.target.closest("[data-live]");
      const exportLink = e.target.closest("[data-export]"), linkButton = e.target.closest("[data-permalink]");
      if (spanButton) setSpan(Number(spanButton.dataset.span));
      if (liveButton) setLive(!live);
      if (linkButton) { hr.copy(location.origin + permalink()); linkButton.classList.add("on"); setTimeout(() => linkButton.classList.remove("on"), 1200); }
      if (exportLink && tags.length) {
        location.href = "/api/v1/samples?" + new URLSearchParams({ tags: tags.map((t) => t.tag_id).join(","), start: Math.round(view.start * 1000), end: Math.round(view.end * 1000), format: exportLink.dataset.export });
      }
    });
  }

  function permalink() {
    return location.pathname + "?tags=" + tags.map((t) => t.tag_id).join(",") + "&start=" + Math.round(view.start) + "&end=" + Math.round(view.end);
  }

  return { init, setTags, zoomTo: (start, end) => { live = false; view = { start, end }; moved(0); }, state: () => ({ view, live, lines, loaded }) };
})();
