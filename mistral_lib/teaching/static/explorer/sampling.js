/* The explorer "Sampling" of chapter 16: what the settings of a sampler make of a distribution.

   It starts from the recorded logits of one text, and from those of any text once there is a model.
   Its steps are tested against mistral_lib/generation/sampling.py (tests/test_sampling_explorer.py). */
(() => {
  "use strict";

  const { element, button, slider, define, model, loader, percent, label, spoken } = window.explorers;
  const BARS = 12, DRAWS = 100, LONGEST = 2000;
  const off = (none, show) => (value) => (value === none ? "off" : show(value));
  const number = (value) => value.toFixed(2);
  // In the order of the steps. At `none` a step is left out.
  const SETTINGS = {
    penalty: { name: "Repetition penalty", min: 1, max: 2, step: 0.05, none: 1, show: number },
    temperature: { name: "Temperature", min: 0, max: 2, step: 0.05, none: 1, show: number },
    topK: { name: "Top-k", min: 1, max: 51, step: 1, none: 51, show: String },
    topP: { name: "Top-p", min: 0.05, max: 1, step: 0.05, none: 1, show: number },
    minP: { name: "Min-p", min: 0, max: 0.5, step: 0.01, none: 0, show: number },
  };

  function softmax(logits) {
    const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  }

  /* What remains of logits, and for each token that is left out the step that did it. */
  function filter(logits, { penalty, temperature, topK, topP, minP }, used) {
    const kept = Float64Array.from(logits), cut = Array(kept.length).fill("");
    const keep = (threshold, name) =>
      kept.forEach((logit, id) => {
        if (logit >= threshold) return;
        cut[id] ||= name;
        kept[id] = -Infinity;
      });
    const highest = () => kept.reduce((a, b) => Math.max(a, b), -Infinity);
    for (const id of used) kept[id] *= kept[id] < 0 ? penalty : 1 / penalty;
    if (temperature === 0) {
      keep(highest(), "greedy"); // the likeliest; the other steps have nothing to do
      return { kept, cut };
    }
    kept.forEach((logit, id) => (kept[id] = logit / temperature));
    if (topK !== SETTINGS.topK.none) keep(kept.toSorted().at(-topK), "top-k");
    if (topP < 1) {
      const ranked = kept.toSorted().reverse();
      let before = 0, last = 0;
      softmax(ranked).forEach((p, rank) => {
        if (before < topP) last = rank; // what comes before it does not reach p yet
        before += p;
      });
      keep(ranked[last], "top-p");
    }
    if (minP > 0) keep(highest() + Math.log(minP), "min-p");
    return { kept, cut };
  }

  /* How often each token comes in some draws. */
  function draw(probabilities, count) {
    const drawn = new Map();
    for (let left = count; left > 0; left--) {
      let rest = Math.random();
      let id = probabilities.findIndex((p) => (rest -= p) < 0);
      if (id < 0) id = probabilities.findLastIndex((p) => p > 0);
      drawn.set(id, (drawn.get(id) ?? 0) + 1);
    }
    return drawn;
  }

  function build({ root, body, data, say, address }) {
    const START = Object.fromEntries(Object.entries(SETTINGS).map(([key, { none }]) => [key, none]));
    let step, drawn, typing, asked = 0, live = false;

    const text = element("textarea", { rows: 3, maxlength: LONGEST, spellcheck: "false" });
    const { load, progress, note } = loader(root, data.megabytes, say, goLive);
    const controls = {};
    const form = element("form");
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const [key, { name, none, show, ...range }] of Object.entries(SETTINGS)) {
      const words = key === "temperature" ? show : off(none, show);
      controls[key] = slider(name, { ...range, value: none, show: words }, changed);
      form.append(controls[key].row);
    }
    const hundred = button(`Draw ${DRAWS}`, drawMany);
    const title = element("p", { class: "step" });
    const bars = element("ol", { class: "bars", "aria-label": "The likeliest tokens" });
    const words = element("label", { class: "wide" }, element("span", {}, "Your text"), text);
    const actions = element("p", { class: "actions" }, load, hundred);
    const key = element("p", { class: "key" }, "Outlined: before the settings. Filled: after them.");
    body.append(words, progress, note, form, actions, title, key, bars);
    text.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(readText, 400);
    });

    const settings = () =>
      Object.fromEntries(Object.entries(controls).map(([key, control]) => [key, control.get()]));

    function changed() {
      drawn = null;
      show();
      remember();
      tell();
    }

    function remember() {
      const values = Object.entries(settings()).filter(([key, value]) => value !== START[key]);
      const own = text.value === data.text ? [] : [["text", text.value]];
      address.write(Object.fromEntries([...values, ...own]));
    }

    function show() {
      text.readOnly = !live;
      const before = softmax(step.logits);
      const { kept, cut } = filter(step.logits, settings(), step.used);
      const after = softmax(kept);
      const order = [...before.keys()].sort((a, b) => before[b] - before[a]).slice(0, BARS);
      const most = Math.max(...order.map((id) => Math.max(before[id], after[id])));
      const rows = order.map((id) => row(id, before[id] / most, after[id], most, cut[id]));
      const sum = (all) => 1 - order.reduce((total, id) => total + all[id], 0);
      bars.replaceChildren(...rows, otherRow(sum(before), sum(after), most, order));
      const left = after.filter((p) => p > 0).length;
      const [some, all] = [left, after.length].map((count) => count.toLocaleString("en"));
      title.textContent = `${some} of ${all} tokens are left`;
      return { before, after };
    }

    const piece = (id) => step.pieces.get(id) ?? `token ${id}`;

    function strip(before, after) {
      const width = (p) => `width: ${Math.min(100, 100 * Math.max(0, p))}%`;
      const [was, is] = [before, after].map((p) => element("span", { style: width(p) }));
      was.className = "was";
      return element("span", { class: "bar" }, was, is);
    }

    function row(id, before, after, most, cut) {
      const made = element("li", {}, element("span", { class: "token" }, label(piece(id))));
      const count = drawn?.get(id) ?? 0;
      const said = cut || (drawn ? `× ${count}` : "");
      made.append(strip(before, after / most));
      made.append(element("span", { class: "chance" }, percent(after)));
      made.append(element("span", { class: "said" }, said));
      made.classList.toggle("cut", cut !== "");
      made.dataset.id = id;
      return made;
    }

    function otherRow(before, after, most, order) {
      const name = element("span", { class: "token" }, "all others");
      const made = element("li", { class: "rest" }, name, strip(before / most, after / most));
      made.append(element("span", { class: "chance" }, percent(Math.max(0, after))));
      const shown = order.reduce((sum, id) => sum + (drawn?.get(id) ?? 0), 0);
      made.append(element("span", { class: "said" }, drawn ? `× ${DRAWS - shown}` : ""));
      return made;
    }

    function tell() {
      const { before, after } = show();
      const best = after.indexOf(after.reduce((a, b) => Math.max(a, b)));
      const [was, is] = [before[best], after[best]].map(percent);
      const change = was === is ? is : `${is}, and before the settings ${was}`;
      say(`${title.textContent}. The likeliest is “${spoken(piece(best))}”: ${change}.`);
    }

    function drawMany() {
      drawn = null;
      drawn = draw(show().after, DRAWS);
      show();
      const [id, count] = [...drawn].sort((a, b) => b[1] - a[1])[0];
      const kinds = drawn.size === 1 ? "1 token" : `${drawn.size} different tokens`;
      say(`${DRAWS} drawn: ${kinds}, most often “${spoken(piece(id))}”, ${count} times.`);
    }

    function readText() {
      clearTimeout(typing);
      remember();
      lookUp();
    }

    async function lookUp() {
      const mine = ++asked;
      const question = { text: text.value, whole: true };
      try {
        await model.steps(question, ({ step: found, read, of }) => {
          if (mine !== asked) return;
          if (!found) return void (title.textContent = `The model reads, ${read} of ${of} tokens`);
          const pieces = found.likeliest.map(([id, name]) => [id, name]);
          step = { logits: found.logits, used: found.used, pieces: new Map(pieces) };
          changed();
        });
      } catch (error) {
        say(error.message);
      }
    }

    function goLive() {
      live = true;
      text.readOnly = false;
      text.focus();
      lookUp();
    }

    function begin(values) {
      asked += 1;
      drawn = null;
      text.value = values.text ?? data.text;
      for (const [key, control] of Object.entries(controls)) control.set(values[key] ?? START[key]);
      step = { logits: data.logits, used: data.used, pieces: new Map(data.pieces) };
      show();
      if (live) lookUp();
    }

    begin(address.read());
    return () => {
      begin({});
      address.write({});
      say("");
    };
  }

  window.samplingExplorer = { filter };
  define("sampling", "Sampling", build);
})();
