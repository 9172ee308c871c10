// The script of a report's page: tables sort and filter, figures show values, hide settings, zoom and become large.
// The texts that it shows are in #page_words; what the lines and points of a figure show, in the JSON beside it (live.py).
"use strict";

const words = JSON.parse(document.getElementById("page_words").textContent);
const dialog = document.querySelector("dialog"), tip = document.querySelector(".tip");

function element(name, className, text = "", parent = null) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  parent?.append(made);
  return made;
}

function button(parent, text, title, onclick) {
  const made = element("button", "", text, parent);
  made.type = "button";
  made.title = made.ariaLabel = title;
  made.onclick = onclick;
  return made;
}

// --- Tables ---

// a click on a column's head sorts by it, once more the other way; empty cells stay last
document.querySelectorAll("th button").forEach(button => button.onclick = () => {
  const th = button.parentElement, at = th.cellIndex, body = th.closest("table").tBodies[0];
  const down = th.getAttribute("aria-sort") === "ascending";
  th.parentElement.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  th.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[at].dataset.value;
  const order = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  [...body.rows].sort((a, b) => value(a) === "" ? 1 : value(b) === "" ? -1 : (down ? -1 : 1) * order(value(a), value(b)))
    .forEach(row => body.append(row));
});

// a text above a long table hides the rows that do not contain it
document.querySelectorAll(".table table").forEach(table => {
  const rows = [...table.tBodies[0].rows];
  if (rows.length <= 10) return;
  const field = element("input", "");
  field.type = "search";
  field.placeholder = field.ariaLabel = words.filter;
  field.oninput = () => rows.forEach(row => row.hidden = !row.textContent.toLowerCase().includes(field.value.toLowerCase()));
  table.parentElement.before(field);
});

// --- Large figures ---

function enlarge(shown, afterwards = () => {}) {
  const focused = document.activeElement;  // which loses the focus if it moves into the dialog
  dialog.ariaLabel = shown.alt ?? shown.querySelector("[aria-label]")?.ariaLabel ?? words.enlarge;
  dialog.replaceChildren(shown, tip);
  dialog.onclose = () => {
    document.body.append(tip);
    afterwards();
    dialog.replaceChildren();
    focused?.focus({ preventScroll: true });
  };
  dialog.showModal();
}

document.querySelectorAll("figure img").forEach(image => {
  image.tabIndex = 0;
  image.onclick = () => enlarge(image.cloneNode());
  image.onkeydown = event => { if (event.key === "Enter") image.click(); };
});
dialog.onclick = event => { if (event.target === dialog || event.target.tagName === "IMG") dialog.close(); };

// --- Figures to point at ---

const RADIUS = 24, TOUCHING = 1.5, MOST = 5;  // pixels: what is near the pointer, what lies on each other; lines of a tip
const SVG = "http://www.w3.org/2000/svg";

// a number as the page writes it, with the digits that suit another one, and all of two digits if it is `exact`
function written(value, as = value, exact = false) {
  const digits = { minimumFractionDigits: exact ? 2 : 0, maximumFractionDigits: 2 };
  return formatted(value, Math.abs(as) >= 1 || as === 0 ? digits : { maximumSignificantDigits: 3 });
}

function formatted(value, format) {
  const text = new Intl.NumberFormat("en", format).format(value).replace("-", "−");
  return document.documentElement.lang === "es" ? text.replace(/[.,]/g, sign => sign === "," ? "\u202f" : ",") : text;
}

// where a value is drawn in a panel
function placed(panel, [x, y]) {
  const share = (value, [low, high, log]) => log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const [left, top, right, bottom] = panel.box;
  return [left + share(x, panel.x) * (right - left), bottom - share(y, panel.y) * (bottom - top)];
}

// round numbers between two shares of an axis, about as many as wanted
function ticks([low, high, log], from, to, count) {
  const at = share => log ? low * (high / low) ** share : low + share * (high - low);
  const [first, last] = [at(from), at(to)].sort((a, b) => a - b), found = [];
  if (log && last > 10 * first) {
    const digits = count > 2 * Math.log10(last / first) ? [1, 2, 5] : [1];
    for (let power = 10 ** Math.floor(Math.log10(first)); power <= last; power *= 10)
      found.push(...digits.map(digit => digit * power).filter(value => value >= first && value <= last));
    return found;
  }
  const rough = (last - first) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(times => times * power >= rough);
  for (let n = Math.ceil(first / step); n * step <= last; n++) found.push(n * step);
  return found;
}

function drawn(name, values, parent, text = "") {
  const made = parent.appendChild(document.createElementNS(SVG, name));
  Object.entries(values).forEach(([key, value]) => made.setAttribute(key, value));
  made.textContent = text;
}

// the image that a point shows, cut out of the sheet of all (thumbnails.py)
function thumbnail(mark, at) {
  const sheet = document.getElementById(`sheet_${mark.sheet}`), columns = Math.ceil(Math.sqrt(mark.values.length));
  const width = sheet.naturalWidth / columns, height = sheet.naturalHeight / Math.ceil(mark.values.length / columns);
  const made = element("canvas", "");
  Object.assign(made, { width, height });
  const corner = [width * (at % columns), height * Math.floor(at / columns)];
  if (width) made.getContext("2d").drawImage(sheet, ...corner, width, height, 0, 0, width, height);
  return made;
}

function within([x, y], [left, top, right, bottom]) {
  return x >= left && x <= right && y >= top && y <= bottom;
}

// how far a point is from a line between two others
function apart([x, y], [ax, ay], [bx, by]) {
  const dx = bx - ax, dy = by - ay;
  const share = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - ax - share * dx, y - ay - share * dy);
}

// the value of a mark that is nearest to a point: how far, and which
function nearest(mark, point) {
  let best = { far: Infinity };
  mark.places.forEach((place, at) => {
    const from = Math.hypot(place[0] - point[0], place[1] - point[1]);
    if (from < best.far) best = { far: from, at };
    if (!mark.line || !at) return;
    const before = mark.places[at - 1], far = apart(point, before, place);
    if (far < best.far) best = { far, at: from < Math.hypot(before[0] - point[0], before[1] - point[1]) ? at : at - 1 };
  });
  return { mark, ...best };
}

// the values that are shown are forgotten where one touches or scrolls next
let forget = () => {};
["pointerdown", "scroll"].forEach(name => addEventListener(name, () => forget(), { capture: true, passive: true }));

// the figures of a section share what is hidden
const sections = new Map();

// and keep it when the page reloads itself, where the browser has a place for it
function kept(section, names = null) {
  const key = `${location.pathname} ${section.querySelector("h2")?.id}`;
  try {
    if (names) sessionStorage.setItem(key, JSON.stringify(names));
    return JSON.parse(sessionStorage.getItem(key) ?? "[]");
  } catch {
    return [];
  }
}

// what is unfolded stays so too
for (const details of document.querySelectorAll("section details")) {
  const key = `${location.pathname} open ${details.closest("section").querySelector("h2")?.id}`;
  try {
    details.open ||= sessionStorage.getItem(key) === "true";
    details.addEventListener("toggle", () => sessionStorage.setItem(key, details.open));
  } catch {
    // the browser has no place for it
  }
}

function choose(group, names) {
  group.hidden = new Set(names);
  kept(group.section, names);
  group.figures.forEach(figure => figure.update());
}

function wake(figure) {
  // the image becomes a part of the page, in a tree of its own, so that the ids of figures do not collide
  const image = figure.querySelector("img"), data = JSON.parse(figure.querySelector("script").textContent);
  const bytes = Uint8Array.from(atob(image.src.split(",")[1]), character => character.charCodeAt(0));
  const svg = new DOMParser().parseFromString(new TextDecoder().decode(bytes), "image/svg+xml").documentElement;
  const box = element("div", "box"), scroll = element("div", "scroll"), host = element("div", `host ${image.className}`);
  host.role = "img";
  host.ariaLabel = image.alt;
  host.style.setProperty("--width", image.style.getPropertyValue("--width"));
  const whole = svg.getAttribute("viewBox").split(" ").map(Number);
  host.style.setProperty("--ratio", whole[2] / whole[3]);
  const root = host.attachShadow({ mode: "open" });
  const style = `svg { width: 100%; height: auto; display: block; } :host(.zoomed) path { vector-effect: non-scaling-stroke; }
    :host(.zoomed) .numbers [id*=tick_] { display: none; }
    [id^=text_] { transform-box: fill-box; transform-origin: center; }
    :host(.zoomed) [id^=text_], :host(.zoomed) .point { scale: var(--smaller); }
    text { font-family: system-ui, sans-serif; paint-order: stroke; stroke: #fff; stroke-linejoin: round; }`;
  element("style", "", style, root);
  root.append(svg);
  const [scales, rings] = [0, 1].map(() => svg.appendChild(document.createElementNS(SVG, "g")));
  const axes = data.panels.flatMap(panel => [panel.x, panel.y]).filter(([, , , id]) => id);
  axes.forEach(([, , , id]) => root.getElementById(id)?.classList.add("numbers"));

  // points, which keep their size when the figure is zoomed; what is at 0 is an area
  root.querySelectorAll('use[style]:not([x="0"])').forEach(point => {
    point.classList.add("point");
    point.style.transformOrigin = `${point.getAttribute("x")}px ${point.getAttribute("y")}px`;
  });

  // marks with their elements and places
  const marks = data.marks.map(mark => {
    const own = root.getElementById(mark.id), values = mark.values ?? [];
    const node = "child" in mark ? own?.querySelectorAll(":scope > path, :scope > g > use")[mark.child] : own;
    const name = data.settings[mark.setting]?.name, panel = data.panels[mark.panel];
    return { ...mark, node, name, panel, values, places: values.map(value => value.includes(null) ? [NaN, NaN] : placed(panel, value)) };
  });

  // a button for each setting
  const section = figure.closest("section") ?? document.body;
  if (!sections.has(section)) sections.set(section, { section, hidden: new Set(kept(section)), figures: [] });
  const group = sections.get(section), buttons = new Map();
  const fade = name => group.figures.forEach(other => other.fade(name));
  if (data.settings.length > 1) {
    const legend = element("div", "legend", "", box);
    data.settings.forEach(({ name, color, dash }) => {
      const made = button(legend, "", name, () => {
        choose(group, group.hidden.has(name) ? [...group.hidden].filter(other => other !== name) : [...group.hidden, name]);
      });
      const swatch = element("span", dash === "None" ? "swatch dot" : "swatch", "", made);
      swatch.style.borderColor = color;
      swatch.style.borderTopStyle = { "--": "dashed", "-.": "dashed", ":": "dotted" }[dash] ?? "solid";
      made.append(name);
      made.onpointerenter = made.onfocus = () => fade(name);
      made.onpointerleave = made.onblur = () => fade();
      buttons.set(name, made);
    });
  }

  // zoom: buttons, the wheel with Ctrl, or on a zoomed or large figure; a double click goes to a panel and back; a zoomed
  // figure is dragged
  let view = whole;
  const zoomed = () => view[2] < whole[2] - 1e-6;
  const scale = () => svg.getScreenCTM().a;
  const point = event => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [x, y];
  };
  const show = (x, y, width) => {
    const height = width * whole[3] / whole[2];
    view = [Math.max(0, Math.min(whole[2] - width, x)), Math.max(0, Math.min(whole[3] - height, y)), width, height];
    svg.setAttribute("viewBox", view.join(" "));
    svg.style.setProperty("--smaller", view[2] / whole[2]);
    host.classList.toggle("zoomed", zoomed());
    reset.hidden = !zoomed();
    rescale();
    leave();
  };

  // the axes of a zoomed figure say what is in view: below and left of a panel, or at the edge of the view
  const rescale = () => {
    scales.replaceChildren();
    if (!zoomed() || !host.clientWidth) return;
    const pixel = 1 / scale(), end = view[1] + view[3], style = { "font-size": 12 * pixel, "stroke-width": 3 * pixel };
    for (const panel of data.panels) {
      const [x0, y0, x1, y1] = panel.box;
      const left = Math.max(x0, view[0]), right = Math.min(x1, view[0] + view[2]);
      const top = Math.max(y0, view[1]), bottom = Math.min(y1, end);
      const write = (label, d, values) => {
        drawn("path", { d, stroke: "#0002", "stroke-width": 0.8 }, scales);
        drawn("text", { ...values, ...style }, scales, label);
      };
      const labels = (axis, from, to, length, isCut) => {
        const [, , , id, names] = axis;
        if (!id) return isCut ? names.map(([value, name]) => [value, name.length > 30 ? `${name.slice(0, 29)}…` : name]) : [];
        const values = ticks(axis, from / length, to / length, Math.max(1, (to - from) / pixel / 70));
        return values.map(value => [value, formatted(value, { maximumSignificantDigits: 8 })]);
      };
      if (left >= right || top >= bottom) continue;
      for (const [value, label] of labels(panel.x, left - x0, right - x0, x1 - x0, bottom < y1)) {
        const [x] = placed(panel, [value, panel.y[0]]), y = Math.min(bottom + 15 * pixel, end - 5 * pixel);
        if (x >= left && x <= right && x > view[0] + 12 * pixel) write(label, `M${x} ${top}V${bottom}`, { x, y, "text-anchor": "middle" });
      }
      for (const [value, label] of labels(panel.y, y1 - bottom, y1 - top, y1 - y0, left > x0)) {
        const [, y] = placed(panel, [panel.x[0], value]), outside = left - view[0] > 40 * pixel;
        const where = outside ? { x: left - 5 * pixel, "text-anchor": "end" } : { x: left + 4 * pixel };
        if (y >= top && y <= (outside ? bottom : bottom - 4 * pixel)) write(label, `M${left} ${y}H${right}`, { ...where, y: y + (panel.y[3] ? 4 : -6) * pixel });
      }
    }
  };
  new ResizeObserver(rescale).observe(host);

  const centre = ([left, top, right, bottom]) => [(left + right) / 2, (top + bottom) / 2];
  const nearestPanel = () => {
    const [x, y] = [view[0] + view[2] / 2, view[1] + view[3] / 2], far = at => Math.hypot(at[0] - x, at[1] - y);
    return data.panels.map(({ box }) => centre(box)).reduce((best, at) => far(at) < far(best) - 1 ? at : best);
  };
  const zoom = (factor, [x, y] = nearestPanel()) => {
    const width = Math.max(whole[2] / 40, Math.min(whole[2], view[2] / factor)), share = width / view[2];
    show(x - (x - view[0]) * share, y - (y - view[1]) * share, width);
  };
  host.ondblclick = event => {
    const here = point(event), panel = data.panels.find(({ box }) => within(here, box));
    if (zoomed()) return show(0, 0, whole[2]);
    if (!panel || data.panels.length === 1) return zoom(3, here);
    const [left, top, right, bottom] = panel.box, labels = 50;
    const width = Math.min(whole[2], Math.max(right - left + 1.2 * labels, (bottom - top + 1.5 * labels) * whole[2] / whole[3]));
    show(right + labels / 5 - width, top - labels / 2, width);
  };
  host.addEventListener("wheel", event => {
    if (!(event.ctrlKey || event.metaKey || zoomed() || dialog.open)) return;
    event.preventDefault();
    zoom(2 ** (-event.deltaY / 300), point(event));
  }, { passive: false });
  let held = null;
  host.onpointerdown = event => {
    if (zoomed() && event.button === 0) { held = point(event); host.setPointerCapture(event.pointerId); }
    else look(event);
  };
  host.onpointerup = host.onpointercancel = () => held = null;
  host.onpointermove = event => {
    if (!held) return look(event);
    const [x, y] = point(event);
    show(view[0] + held[0] - x, view[1] + held[1] - y, view[2]);
  };

  // values beside the pointer, with rings around them and around the same images in other panels; a touch leaves them
  const leave = () => { tip.hidden = true; rings.replaceChildren(); };
  host.onpointerleave = event => { if (event.pointerType !== "touch") leave(); };
  const look = event => {
    forget();
    forget = leave;
    const here = point(event), panel = data.panels.find(({ box }) => within(here, box));
    const near = marks.filter(mark => mark.panel === panel && mark.values.length && !group.hidden.has(mark.name))
      .map(mark => nearest(mark, here)).filter(({ far }) => far * scale() <= RADIUS).sort((a, b) => a.far - b.far);
    if (!near.length) return;
    const hits = near.filter(({ far }) => (far - near[0].far) * scale() <= TOUCHING).slice(0, MOST);
    tip.replaceChildren();
    for (const { mark, at } of hits) {
      const hit = element("div", "", "", tip);
      if (mark.sheet) hit.append(thumbnail(mark, at));
      if (mark.name) element("b", "", mark.name, hit);
      const [x, y, spread] = mark.values[at], [across, up] = mark.panel.labels;
      const value = spread ? `${written(y, y, true)} ± ${written(spread, y, true)}` : written(y);
      const lines = mark.notes ? data.notes[mark.notes[at]].split("\n") : [`${across}: ${written(x)}`, `${mark.what ?? up}: ${value}`];
      lines.forEach(line => element("span", "", line, hit));
      const same = "images" in mark ? marks.filter(other => other.images === mark.images) : [mark];
      same.filter(other => within(other.places[at], other.panel.box)).forEach(other => ring(other.places[at]));
    }
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect(), space = 14;
    const left = event.clientX + space + width < innerWidth ? event.clientX + space : event.clientX - space - width;
    const top = event.clientY + space + height < innerHeight ? event.clientY + space : event.clientY - space - height;
    tip.style.left = `${Math.max(4, Math.min(innerWidth - width - 4, left))}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  };
  const ring = ([cx, cy]) => {
    drawn("circle", { cx, cy, r: 6 / scale(), fill: "none", stroke: "#000", "stroke-width": 1.5 / scale() }, rings);
  };

  // the buttons of the figure
  const tools = element("div", "tools", "", box);
  if (buttons.size) {
    button(tools, words.all, words.all, () => choose(group, []));
    button(tools, words.none, words.none, () => choose(group, group.figures.flatMap(other => other.names)));
  }
  button(tools, "+", words.larger, () => zoom(1.5));
  button(tools, "−", words.smaller, () => zoom(1 / 1.5));
  const reset = button(tools, words.whole, words.whole, () => show(0, 0, whole[2]));
  reset.hidden = true;
  button(tools, words.enlarge, words.enlarge, () => enlarge(box, () => figure.prepend(box))).className = "enlarge";
  button(tools, words.close, words.close, () => dialog.close()).className = "close";

  // show it, with what is hidden in its section
  const update = () => {
    marks.forEach(({ node, name }) => { if (node && name) node.style.display = group.hidden.has(name) ? "none" : ""; });
    buttons.forEach((made, name) => made.setAttribute("aria-pressed", !group.hidden.has(name)));
    leave();
  };
  group.figures.push({
    update,
    names: [...buttons.keys()],
    fade: name => marks.forEach(mark => { if (mark.node) mark.node.style.opacity = name && mark.name !== name && buttons.has(name) ? 0.15 : ""; }),
  });
  scroll.append(host);
  box.append(scroll);
  figure.prepend(box);
  figure.classList.add("awake");
  update();
}

// figures are woken shortly before they are seen
const watch = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(({ target }) => {
  watch.unobserve(target);
  wake(target);
}), { rootMargin: "100%" });
document.querySelectorAll("figure > script").forEach(data => watch.observe(data.parentElement));
