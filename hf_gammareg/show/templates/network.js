// --- the table: a row for each gamma, in model order ---
const body = find("#gammas tbody"), rows = all("tr", body), headers = all("#gammas th");
let texts = null;  // made when they are first asked for
const roles = rows.map(row => row.cells[2].lastChild.lastChild.textContent);
const shown = { roles: new Set(), block: null };

function filter() {
  const words = find("#words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const which = find("#which").value, other = which.startsWith("other:") ? 3 + Number(which.slice(6)) : 0;
  let count = 0;
  texts ??= rows.map(row => row.textContent.toLowerCase());
  rows.forEach((row, i) => {
    const decision = row.cells[3].textContent;
    const keep = (!shown.roles.size || shown.roles.has(roles[i])) && (!shown.block || shown.block.has(i))
      && words.every(word => texts[i].includes(word))
      && (!which || (other ? row.cells[other].classList.contains("other") : which === "yes" ? decision === "yes" : decision !== "yes"));
    row.hidden = !keep;
    count += keep;
  });
  find("#shown").textContent = `${count} of ${rows.length} gammas`;
  find("#clear").hidden = !(words.length || which || shown.roles.size || shown.block);
  for (const dot of all(".block g")) dot.classList.toggle("faded", shown.roles.size > 0 && !shown.roles.has(dot.dataset.role));
  for (const button of all("#legend button")) button.setAttribute("aria-pressed", shown.roles.has(button.dataset.role));
}

const natural = new Intl.Collator("en", { numeric: true });
function sort(column, descending) {
  const key = row => (find(".name", row.cells[column]) ?? row.cells[column]).textContent;
  const keys = new Map(rows.map(row => [row, key(row)]));
  const sign = descending ? -1 : 1;
  body.append(...[...rows].sort((a, b) => sign * natural.compare(keys.get(a), keys.get(b))));
  headers.forEach((header, i) => i === column
    ? header.setAttribute("aria-sort", descending ? "descending" : "ascending") : header.removeAttribute("aria-sort"));
}
headers.forEach((header, i) => find("button", header).addEventListener("click", () => sort(i, header.ariaSort === "ascending")));
find("#words").addEventListener("input", filter);
find("#which").addEventListener("change", filter);
find("#clear").addEventListener("click", () => {
  find("#words").value = find("#which").value = "";
  shown.roles.clear();
  shown.block = null;
  filter();
  find("#words").focus();
});
for (const button of all("#legend button")) button.addEventListener("click", () => {
  const role = button.dataset.role;
  if (!shown.roles.delete(role)) shown.roles.add(role);
  filter();
});

// --- the network: a panel for the block that is pointed at ---
const blocks = all(".block"), panel = find("#panel");
const numbers = text => text ? text.split(",").map(Number) : [];

function describe(block) {
  for (const other of blocks) {
    other.tabIndex = other === block ? 0 : -1;
    other.toggleAttribute("aria-current", false);
  }
  block.setAttribute("aria-current", "true");
  const { label, count, residual, sides, members } = block.dataset;
  const lanes = sides.split("|").map(numbers), times = Number(count);
  const told = [make("h3", label)];
  if (times > 1) told.push(make("p", `Repeated ${times} times; the first stands for all.`, "soft"));
  if (!numbers(members).length) told.push(make("p", "No gammas in this block."));
  lanes.forEach((lane, i) => {
    if (!lane.length) return;
    const list = make("dl");
    if (lanes.length > 1) told.push(make("p", i === 0 && residual === "1" ? "On the skip" : lanes.length > 2 ? `On branch ${i}` : "On the branch", "side"));
    for (const number of lane) list.append(...entry(rows[number]));
    told.push(list);
  });
  if (numbers(members).length) {
    const button = make("button", numbers(members).length > 1 ? `List its ${numbers(members).length} gammas below` : "Show it in the table");
    button.type = "button";
    button.addEventListener("click", () => only(block));
    told.push(button);
  }
  panel.replaceChildren(...told);
  panel.scrollTop = 0;
}

function entry(row) {
  const title = make("dt"), cells = row.cells;
  title.append(find(".letter", row).cloneNode(true), find(".name", row).cloneNode(true));
  const decision = cells[3].textContent;
  const verdict = make("dd", `${cells[2].lastChild.lastChild.textContent}: `);
  verdict.append(make("b", { yes: "decays", no: "does not decay" }[decision] ?? decision));
  const others = headers.slice(4, -2).map((header, i) => `${header.textContent} ${cells[4 + i].textContent}`);
  if (others.length) verdict.append(make("span", ` (${others.join(", ")})`, "soft"));
  const why = make("dd");
  why.append(...[...find(".why", row).childNodes].map(node => node.cloneNode(true)));
  const place = row.dataset.placement && `${row.dataset.placement === "input" ? "Input norm" : "Output norm"}. `;
  const exact = row.dataset.exact === "1" ? "This holds to rounding." : "";
  return [title, verdict, why, ...(place + exact ? [make("dd", place + exact, "soft")] : [])];
}

function only(block) {
  shown.block = new Set(numbers(block.dataset.members));
  filter();
  find("#gammas").scrollIntoView();
}

blocks.forEach((block, i) => {
  block.addEventListener("pointerenter", () => describe(block));
  block.addEventListener("focus", () => describe(block));
  block.addEventListener("click", event => event.detail === 0 ? only(block) : describe(block));
  block.addEventListener("keydown", event => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: blocks.length - 1 }[event.key];
    if (blocks[to]) {
      event.preventDefault();
      blocks[to].focus();
    }
  });
});
if (blocks.length) describe(blocks[0]);

// --- what decay will do: the optimizers' own rules, as in hf_gammareg/decay/optimizers.py ---
const MOST = 10_000_000;
const rates = {
  constant: () => 1,
  linear: (step, steps) => (steps - step) / steps,
  cosine: (step, steps) => 0.5 * (1 + Math.cos(Math.PI * step / steps)),
};
const optimizers = {
  AdamW: { kind: "decoupled", start: () => (weight, lr, decay) => weight * (1 - lr * decay) },
  SGD: { kind: "coupled", start: () => (weight, lr, decay) => weight * (1 - lr * decay) },
  "SGD 0.9": {
    kind: "coupled", note: "the decay runs through the momentum",
    start: () => {
      let memory = null;
      return (weight, lr, decay) => {
        memory = memory === null ? decay * weight : 0.9 * memory + decay * weight;
        return weight - lr * memory;
      };
    },
  },
  Adam: { kind: "coupled", note: "the gradient's own size rescales it, so it has no factor of its own" },
};

function number(factor) {
  if (!(factor > 0 && factor < 1)) return String(Number(factor.toPrecision(4)));
  if (factor < 0.1) return String(Number(factor.toPrecision(2)));
  const digits = Math.max(4, Math.ceil(-Math.log10(1 - factor)) + 1);
  return factor.toFixed(Math.min(digits, 20)).replace(/0+$/, "").replace(/\.$/, "");
}

function budget() {
  const field = id => find("#" + id).value.trim().replace(",", ".");
  const [lr, decay, steps] = ["rate", "decay", "steps"].map(id => field(id) === "" ? NaN : Number(field(id)));
  const { kind, start, note } = optimizers[find("#optimizer").value], [name] = find("#optimizer").value.split(" ");
  const wrong = !(lr >= 0 && lr < Infinity) ? "a learning rate of 0 or more" : !(decay >= 0 && decay < Infinity) ? "a weight decay of 0 or more"
    : !(Number.isInteger(steps) && steps >= 1 && steps <= MOST) ? `a whole number of steps, 1 to ${MOST.toLocaleString("en")}` : "";
  const say = (factor, text, points = []) => {
    find("#factor").textContent = factor;
    find("#told").textContent = text;
    draw(points);
  };
  delete find("#factor").dataset.value;
  if (wrong) return say("", `Expected ${wrong}.`);
  if (!start) return say("", `what decay alone will do to a gamma can't be given as a factor (${name}, ${kind}): ${note}`);
  const step = start(), every = Math.max(1, Math.floor(steps / 160)), points = [[0, 1]];
  let weight = 1;
  for (let i = 0; i < steps; i++) {
    weight = step(weight, lr * rates[find("#schedule").value](i, steps), decay);
    if ((i + 1) % every === 0 || i + 1 === steps) points.push([(i + 1) / steps, weight]);
  }
  find("#factor").dataset.value = weight;
  const small = weight > 0.99 ? "; that is above 0.99: the choice can hardly matter in this run" : "";
  say(`× ${number(weight)}`, `decay alone will multiply a decayed gamma by ${number(weight)} over ${steps.toLocaleString("en")} steps (${name}, ${kind}${note ? "; " + note : ""})${small}`, points);
}

function draw(points) {
  const svg = find("#curve"), put = (...given) => paint(svg, ...given);
  svg.replaceChildren();
  if (!points.length || points.some(([, y]) => !(y >= 0 && y <= 1.0001))) return;
  for (const level of [0, 0.5, 1]) {
    put("line", { x1: 30, x2: 316, y1: 126 - 116 * level, y2: 126 - 116 * level });
    put("text", { x: 24, y: 130 - 116 * level, "text-anchor": "end" }, String(level));
  }
  put("text", { x: 30, y: 146 }, "start");
  put("text", { x: 316, y: 146, "text-anchor": "end" }, "end of the run");
  put("path", { d: "M" + points.map(([x, y]) => `${(30 + 286 * x).toFixed(1)} ${(126 - 116 * y).toFixed(1)}`).join("L") });
}
find("#plan").addEventListener("input", budget);
find("#plan").addEventListener("submit", event => event.preventDefault());
budget();
