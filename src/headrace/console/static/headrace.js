// Live values on any page: elements with data-tag get the newest value, quality and age by one socket.
"use strict";
window.hr = (() => {
  const texts = window.hrTexts || {};
  const latest = new Map(); // tag id -> {v, s, t, x}
  const sparks = new Map(); // tag id -> {t: [], lo: [], hi: []}
  const listeners = new Set();
  let holders = new Map(); // tag id -> elements
  let socket = null, order = [], round = 0, retryMs = 250, offsetMs = 0, scanTimer = 0;

  const now = () => Date.now() + offsetMs;

  function format(v, digits = 5) {
    if (v === null || v === undefined || Number.isNaN(v)) return "–";
    const a = Math.abs(v);
    if (a !== 0 && (a >= 1e9 || a < 1e-4)) return v.toExponential(3);
    if (Number.isInteger(v) && a < 10000) return String(v); // grouped from five digits on (ISO 80000-1)
    if (Number.isInteger(v)) return v.toLocaleString("en-US").replaceAll(",", "\u202f");
    const whole = a < 1 ? 1 : Math.floor(Math.log10(a)) + 1;
    const text = v.toFixed(Math.max(0, Math.min(4, digits - whole - 1)));
    return a >= 10000 ? Number(text).toLocaleString("en-US", { maximumFractionDigits: 1 }).replaceAll(",", "\u202f") : text;
  }

  function ageText(ms) {
    const s = Math.max(0, Math.round(ms / 1000));
    const say = (key, n) => (texts[key] || "{n}").replace("{n}", n);
    if (s < 100) return say("seconds", s);
    if (s < 6000) return say("minutes", Math.round(s / 60));
    if (s < 172800) return say("hours", Math.round(s / 3600));
    return say("days", Math.round(s / 86400));
  }

  const qualityKey = (s) => ["good", "uncertain", "bad", "bad"][s >>> 30];

  function paint(element, sample) {
    const q = String(Math.min(2, sample.s >>> 30));
    if (element.dataset.q !== q) element.dataset.q = q;
    for (const part of element.dataset.f ? [element] : element.querySelectorAll("[data-f]")) {
      const kind = part.dataset.f;
      if (kind === "value") {
        const text = sample.x !== undefined && sample.v === null ? sample.x : format(sample.v);
        if (part.textContent !== text) part.textContent = text;
      } else if (kind === "quality") {
        const key = qualityKey(sample.s);
        if (part.dataset.k !== key) {
          part.dataset.k = key;
          part.className = "hr-pill " + key;
          part.textContent = texts[key] || key;
          part.title = "0x" + sample.s.toString(16).padStart(8, "0");
        }
      } else if (kind === "spark") {
        drawSpark(part, element.dataset.tag);
      }
    }
  }

  function paintAges() {
    const t = now();
    for (const [id, elements] of holders) {
      const sample = latest.get(id);
      if (!sample) continue;
      for (const element of elements) {
        const part = element.querySelector("[data-f=age]");
        if (part) {
          const text = ageText(t - sample.t);
          if (part.textContent !== text) part.textContent = text;
        }
        element.classList.toggle("hr-old", t - sample.t > 15000 && t - sample.seen > 15000);
      }
    }
    for (const element of document.querySelectorAll("[data-since]")) {
      const at = Number(element.dataset.since);
      const text = at ? ageText(t - at) : texts.never || "–";
      if (element.textContent !== text) element.textContent = text;
    }
    for (const element of document.querySelectorAll("[data-until]")) {
      const text = ageText(Number(element.dataset.until) - t);
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function drawSpark(svg, id) {
    const data = sparks.get(id);
    if (!data || data.t.length < 2) return;
    const W = 132, H = 28, t0 = now() - 900000;
    let lo = Math.min(...data.lo), hi = Math.max(...data.hi);
    if (!(hi > lo)) { hi += 1; lo -= 1; }
    const X = (t) => Math.max(0, ((t - t0) / 900000) * W).toFixed(1);
    const Y = (v) => (H - 2 - ((v - lo) / (hi - lo)) * (H - 4)).toFixed(1);
    let line = "", band = "", back = "";
    data.t.forEach((t, i) => {
      const broken = i === 0 || t - data.t[i - 1] > 45000;
      line += (broken ? "M" : "L") + X(t) + " " + Y((data.lo[i] + data.hi[i]) / 2);
      band += (i === 0 ? "M" : "L") + X(t) + " " + Y(data.hi[i]);
      back = "L" + X(t) + " " + Y(data.lo[i]) + back;
    });
    svg.setAttribute("viewBox", "0 0 132 28");
    svg.innerHTML = '<path class="band" d="' + band + back + 'Z"></path><path d="' + line + '"></path>';
  }

  async function loadSparks(ids) {
    for (let i = 0; i < ids.length; i += 40) {
      const part = ids.slice(i, i + 40).filter((id) => !sparks.has(id));
      if (!part.length) continue;
      const answer = await fetch("/api/v1/sparklines?tag_ids=" + part.join(",")).catch(() => null);
      if (!answer || !answer.ok) return;
      for (const [id, data] of Object.entries(await answer.json())) {
        sparks.set(id, data);
        for (const element of holders.get(id) || []) {
          const svg = element.querySelector("[data-f=spark]");
          if (svg) drawSpark(svg, id);
        }
      }
    }
  }

  function growSpark(id, sample) {
    const data = sparks.get(id);
    if (!data || sample.v === null) return;
    const last = data.t.length - 1;
    if (last >= 0 && sample.t - data.t[last] < 7500) {
      data.lo[last] = Math.min(data.lo[last], sample.v);
      data.hi[last] = Math.max(data.hi[last], sample.v);
    } else {
      data.t.push(sample.t); data.lo.push(sample.v); data.hi.push(sample.v);
      while (data.t.length && data.t[0] < now() - 900000) { data.t.shift(); data.lo.shift(); data.hi.shift(); }
    }
  }

  function scan() {
    scanTimer = 0;
    const found = new Map();
    for (const element of document.querySelectorAll("[data-tag]")) {
      const id = element.dataset.tag;
      if (!found.has(id)) found.set(id, []);
      found.get(id).push(element);
    }
    for (const id of extra) if (!found.has(id)) found.set(id, []);
    const changed = found.size !== holders.size || [...found.keys()].some((id) => !holders.has(id));
    holders = found;
    for (const [id, elements] of holders) {
      const sample = latest.get(id);
      if (sample) for (const element of elements) paint(element, sample);
    }
    const wanted = [...holders].filter(([, e]) => e.some((x) => x.querySelector("[data-f=spark]"))).map(([id]) => id);
    if (wanted.length) loadSparks(wanted);
    if (changed) subscribe();
    paintAges();
  }

  const extra = new Set();
  function follow(ids) { extra.clear(); ids.forEach((id) => extra.add(id)); scan(); }

  function subscribe() {
    order = [...holders.keys()];
    if (!socket) { if (order.length) open(); return; }
    if (socket.readyState === 1) socket.send(JSON.stringify({ tag_ids: order, round: ++round }));
  }

  function open() {
    socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/api/v1/live");
    socket.onopen = () => { retryMs = 250; mark(true); subscribe(); };
    socket.onmessage = (event) => take(JSON.parse(event.data));
    socket.onclose = () => {
      socket = null; mark(false);
      setTimeout(open, retryMs);
      retryMs = Math.min(5000, retryMs * 2);
    };
  }

  function mark(on) {
    document.documentElement.classList.toggle("hr-is-offline", !on);
    for (const beat of document.querySelectorAll(".hr-beat")) beat.classList.toggle("on", on);
  }

  function take(message) {
    if (message.now) offsetMs = message.now - Date.now();
    if (!message.i || message.round !== round) return;
    for (let k = 0; k < message.i.length; k++) {
      const id = order[message.i[k]];
      const sample = { v: message.v[k], s: message.s[k], t: message.t[k], seen: now() };
      if (message.x && message.x[k] !== undefined) sample.x = message.x[k];
      latest.set(id, sample);
      growSpark(id, sample);
      for (const element of holders.get(id) || []) paint(element, sample);
    }
    for (const listener of listeners) listener(message.i.map((i) => order[i]));
  }

  async function prefer(fields, reload) {
    await fetch("/preferences", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) });
    if (reload) location.reload();
  }

  function toggleTheme() {
    const dark = !document.documentElement.classList.contains("hr-dark");
    document.documentElement.classList.toggle("hr-dark", dark);
    if (window.Quasar) window.Quasar.Dark.set(dark);
    prefer({ theme: dark ? "dark" : "light" }, false);
    window.dispatchEvent(new Event("hr-theme"));
  }

  async function copy(text) {
    try { await navigator.clipboard.writeText(text); } catch (e) {
      const area = document.createElement("textarea");
      area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
    }
  }

  // Why is this value old? The dialog asks again each two seconds; without an answer the page itself says so.
  let why = null;

  function openWhy(id) {
    if (why) why.close();
    const box = document.createElement("dialog"), head = document.createElement("div"), body = document.createElement("div");
    const title = document.createElement("h2"), close = document.createElement("button");
    box.className = "hr-why"; head.className = "hr-why-head"; body.className = "hr-why-body"; close.className = "hr-iconbtn";
    title.textContent = texts.why || ""; close.textContent = "\u2715"; close.ariaLabel = texts.close || "";
    head.append(title, close); box.append(head, body); document.body.append(box);
    let timer = 0;
    const ask = async () => {
      const sample = latest.get(id), live = socket && socket.readyState === 1 ? 1 : 0;
      const query = new URLSearchParams({ tag: id, live, seen_ms: sample ? sample.t : 0 });
      const answer = await fetch("/api/v1/why/dialog?" + query, { signal: AbortSignal.timeout(12000) }).catch(() => null);
      if (why !== box) return;
      if (!answer) { body.textContent = texts.why_no_console || ""; body.className = "hr-why-body cut"; }
      else if (answer.status === 401) { location.reload(); return; }
      else if (answer.ok) { body.innerHTML = await answer.text(); body.className = "hr-why-body"; } // escaped by the server
      else { const e = await answer.json().catch(() => ({})); body.textContent = (e.code || answer.status) + " " + (e.what || ""); }
      timer = setTimeout(ask, 2000);
    };
    box.addEventListener("close", () => { clearTimeout(timer); if (why === box) why = null; box.remove(); });
    box.addEventListener("click", (event) => { if (event.target === box || event.target === close) box.close(); });
    why = box;
    box.showModal();
    ask();
  }

  function filterRows(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of document.querySelectorAll("[data-search]")) {
      row.classList.toggle("hr-hide", !words.every((word) => row.dataset.search.includes(word)));
    }
  }

  function chosen() { return [...document.querySelectorAll("input[data-pick]:checked")].map((box) => box.dataset.pick); }

  function start() {
    const own = (node) => (node.nodeType === 1 ? node : node.parentElement)?.closest("[data-f],[data-age],[data-since],[data-until]");
    new MutationObserver((records) => { if (!scanTimer && records.some((r) => !own(r.target))) scanTimer = setTimeout(scan, 40); })
      .observe(document.body, { childList: true, subtree: true });
    document.addEventListener("keydown", (event) => {
      const dot = event.target.closest && event.target.closest("[data-why]");
      if (dot && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); openWhy(dot.dataset.why); }
    });
    document.addEventListener("click", (event) => {
      const dot = event.target.closest("[data-why]");
      if (dot) { event.preventDefault(); openWhy(dot.dataset.why); return; } // it may stand inside a link
      const target = event.target.closest("[data-do]");
      for (const open of document.querySelectorAll("details.hr-help[open], .hr-tabs details[open]")) {
        if (!open.contains(event.target)) open.open = false;
      }
      if (!target) return;
      const what = target.dataset.do;
      if (what === "theme") toggleTheme();
      else if (what === "language") prefer({ language: target.dataset.to }, true);
      else if (what === "trend-chosen") {
        const ids = chosen();
        const all = [...document.querySelectorAll("tr[data-tag]:not(.hr-hide)")].map((row) => row.dataset.tag);
        location.href = "/trend?tags=" + (ids.length ? ids : all).slice(0, 8).join(",");
      }
    });
    document.addEventListener("input", (event) => {
      if (event.target.matches("[data-filter]")) filterRows(event.target.value);
    });
    setInterval(paintAges, 1000);
    setInterval(leaveWithSession, 5000);
    scan();
    if (!socket) open();
  }
  // The pages' socket is refused once the session has ended: what stands here is old then, and not ours to see.
  async function leaveWithSession() {
    if (!window.socket || window.socket.connected) return;
    const answer = await fetch("/api/v1/tags?limit=1").catch(() => null);
    if (answer && answer.status === 401) location.href = "/sign-in";
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
  return { latest, listeners, follow, format, ageText, copy, now, texts, prefer };
})();
