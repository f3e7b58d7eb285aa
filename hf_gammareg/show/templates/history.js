const hidden = new Set(), slider = find("#at"), metric = find("#metric"), axis = find("#axis");
const every = [...new Set(runs.flatMap(run => run.steps))].sort((a, b) => a - b);
slider.max = every.length - 1;
slider.value = every.length - 1;
const visible = () => runs.map((run, i) => ({ ...run, i })).filter(run => !hidden.has(run.i));
const short = value => value === null ? "–" : value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(4)));

// The last measurement of a run at a step or before it; its first, where the run begins later.
const nearest = (run, step) => Math.max(0, run.steps.findLastIndex(each => each <= step));

function series(figure) {
  const { key, along } = figure.dataset, step = every[slider.value];
  if (along !== "depth") {
    const whole = key.endsWith("/") ? key + metric.value : key;
    return visible().filter(run => run.values[whole]).map(run => ({
      run, points: run.steps.map((x, i) => [x, run.values[whole][i]]), at: run.values[whole][nearest(run, step)],
    }));
  }
  return visible().flatMap(run => {
    const keys = Object.keys(run.values).filter(name => name.startsWith(key)).sort();
    const points = i => keys.map((name, depth) => [depth, run.values[name][i]]);
    const at = nearest(run, step), means = points(at).map(([, y]) => y).filter(y => y > 0).map(Math.log);
    if (!keys.length) return [];
    const middle = means.length ? Math.exp(means.reduce((a, b) => a + b) / means.length) : null;
    return [{ run, points: points(0), ghost: true }, { run, points: points(at), at: middle, label: "geometric mean " }];
  });
}

function ticks(low, high, log) {
  if (log) {
    const from = Math.floor(low), to = Math.ceil(high), every = Math.max(1, Math.ceil((to - from) / 5)), found = [];
    for (let level = from; level <= to; level += every) found.push(level);
    if (to - from > 2) return found.filter(level => level >= low - 1e-9 && level <= high + 1e-9);
    return [1, 2, 5].flatMap(part => found.map(level => level + Math.log10(part))).filter(level => level >= low - 1e-9 && level <= high + 1e-9).sort((a, b) => a - b);
  }
  const rough = (high - low || 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find(part => part * power >= rough) * power, found = [];
  for (let level = Math.ceil(low / unit - 1e-9) * unit; level <= high + unit * 1e-6; level += unit) found.push(level + 0);
  return found;
}

const pads = { left: 46, right: 10, top: 10, bottom: 24 };
function draw(figure) {
  const svg = find("svg", figure), told = find(".told", figure), lines = series(figure), log = figure.dataset.scale === "log";
  const { clientWidth: width, clientHeight: height } = svg;
  svg.replaceChildren();
  const scaled = y => log ? (y > 0 ? Math.log10(y) : null) : y;
  const points = lines.flatMap(line => line.points).map(([x, y]) => [x, y === null ? null : scaled(y)]).filter(([, y]) => y !== null);
  told.replaceChildren(...lines.filter(line => !line.ghost).map(({ run, at, label }) => {
    const item = make("li");
    item.append(make("i", "", `c${run.i % colours}`), `${runs.length > 1 ? run.name + " " : ""}${label ?? ""}`, make("b", short(at ?? null)));
    return item;
  }));
  if (!points.length || !width) return;
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  let [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (!log && axis.value === "zero") low = Math.min(0, low);
  if (high - low < 1e-9) [low, high] = log ? [low - 0.5, high + 0.5] : [low - 0.1 * (Math.abs(low) || 1), high + 0.1 * (Math.abs(high) || 1)];
  if (!log) [low, high] = [low === 0 ? 0 : low - 0.05 * (high - low), high + 0.05 * (high - low)];
  if (right === left) right = left + 1;
  const px = x => pads.left + (width - pads.left - pads.right) * (x - left) / (right - left);
  const py = y => height - pads.bottom - (height - pads.top - pads.bottom) * (y - low) / (high - low);
  for (const level of ticks(low, high, log)) {
    paint(svg, "line", { class: "grid", x1: pads.left, x2: width - pads.right, y1: py(level), y2: py(level) });
    paint(svg, "text", { x: pads.left - 6, y: py(level) + 4, "text-anchor": "end" }, short(log ? Number((10 ** level).toPrecision(3)) : Number(level.toPrecision(6))));
  }
  const depth = figure.dataset.along === "depth";
  const marks = ticks(left, right, false).filter(Number.isInteger);
  for (const x of marks) paint(svg, "text", { x: px(x), y: height - 7, "text-anchor": px(x) > width - 30 ? "end" : "middle" }, x.toLocaleString("en"));
  if (!depth) {
    const x = px(Math.min(right, Math.max(left, every[slider.value])));
    paint(svg, "line", { class: "cursor", x1: x, x2: x, y1: pads.top, y2: height - pads.bottom });
  }
  lines.forEach(({ run, points: all, ghost }, place) => {
    let path = "", pen = "M";
    for (const [x, y] of all) {
      const value = y === null ? null : scaled(y);
      if (value === null) { pen = "M"; continue; }
      path += `${pen}${px(x).toFixed(1)} ${py(value).toFixed(1)}`;
      pen = "L";
    }
    if (all.length === 1 && path) path += "h.01";
    paint(svg, "path", { class: `line c${run.i % colours}${ghost ? " ghost" : ""}`, d: path,
      ...(ghost ? {} : { "stroke-dasharray": ["none", "7 4", "2 4"][Math.floor(run.i / colours) % 3] }),
      "stroke-width": ghost ? 1.4 : Math.min(7, 2.2 + 1.5 * (lines.length - 1 - place)),  // those below show beside those above
    });
  });
  const said = lines.filter(line => !line.ghost).map(({ run, points: all, at }) => depth
    ? `${run.name}: ${all.map(([, y]) => short(y)).join(", ")}`
    : `${run.name}: from ${short(all[0][1])} to ${short(all.at(-1)[1])}, ${short(at ?? null)} at this step`);
  svg.setAttribute("aria-label", `${figure.dataset.told}. ${said.join("; ")}`);
}

const figures = all(".chart");
function show() {
  find("#step").textContent = every[slider.value].toLocaleString("en");
  for (const small of all(".chart small")) small.textContent = metric.selectedOptions[0].textContent;
  figures.forEach(draw);
}
for (const figure of figures) {
  if (figure.dataset.along === "depth") continue;
  const svg = find("svg", figure);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), wide = svg.clientWidth;
    const points = series(figure).flatMap(line => line.points.map(([x]) => x));
    if (!points.length) return;
    const [left, right] = [Math.min(...points), Math.max(...points)];
    const x = left + (right - left) * (event.clientX - box.left - pads.left) / (wide - pads.left - pads.right);
    const to = every.reduce((best, step, i) => Math.abs(step - x) < Math.abs(every[best] - x) ? i : best, 0);
    if (to === Number(slider.value)) return;
    slider.value = to;
    show();
  });
}
slider.addEventListener("input", show);
metric.addEventListener("change", show);
axis.addEventListener("change", show);
new ResizeObserver(show).observe(find("#main"));
for (const button of all("#legend button")) button.addEventListener("click", () => {
  const run = Number(button.dataset.run);
  if (!hidden.delete(run)) hidden.add(run);
  button.setAttribute("aria-pressed", !hidden.has(run));
  show();
});
show();
