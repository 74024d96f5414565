/* The explorer "Write": the shipped model goes on with a text, token by token.

   Until a reader asks for the model, and wherever it cannot run, it shows a recorded run: the likeliest
   tokens along the text that the model writes, and along some ways that leave it. */
(() => {
  "use strict";

  const { element, button, rove, define, model, loader, percent, label, spoken } = window.explorers;
  const BARS = 8, COUNT = 20, LONGEST = 2000, TAIL = 60;

  define("write", "Write", ({ root, body, data, say, address }) => {
    let state; // the text, the ids of the tokens after it, and the place that is looked at
    let known = new Map(); // the likeliest tokens of each step, by its text and tokens
    const pieces = new Map(); // by id
    let live = false, busy = false, run = 0, seed = 0, typing;

    // --- What is on the screen ---

    const text = element("textarea", { rows: 5, maxlength: LONGEST, spellcheck: "false" });
    const { load, progress, note } = loader(root, data.megabytes, say, goLive);
    const next = button("Next token", () => goOn(1));
    const more = button("", () => (busy ? halt() : goOn(COUNT)));
    const how = element("select");
    for (const [value, name] of [["", "the likeliest"], ["1", "by chance, as the bars say"]])
      how.append(element("option", { value }, name));
    const choice = element("label", {}, "Choose ", how);
    const way = element("div", { class: "way", role: "toolbar", "aria-label": "Tokens so far" });
    const title = element("p", { class: "step" });
    const bars = element("ol", { class: "bars", "aria-label": "The likeliest next tokens" });
    body.append(
      element("label", { class: "wide" }, element("span", {}, "Your text"), text),
      progress,
      note,
      element("p", { class: "actions" }, load, next, more, choice),
      way,
      title,
      bars,
    );
    rove(way, "[role=button]", ["ArrowLeft", "ArrowRight"]);
    rove(bars, "button", ["ArrowUp", "ArrowDown"]);
    text.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(readText, 400);
    });

    // --- What is known ---

    const keyOf = (count) => `${state.text}\0${state.tokens.slice(0, count).join(",")}`;
    const stepAt = (place) => known.get(keyOf(place));
    const hasEnded = () => state.tokens.at(-1) === data.end;

    function learn(key, likeliest) {
      known.set(key, likeliest);
      for (const [id, piece] of likeliest) pieces.set(id, piece);
    }

    /* The probability that a token had when it was chosen. */
    function chanceOf(place) {
      const entry = stepAt(place)?.find(([id]) => id === state.tokens[place]);
      return entry ? percent(entry[2]) : "";
    }

    /* What the model writes after the recorded text. */
    function greedyPath() {
      const ids = [];
      for (let best; (best = data.steps[ids.join(",")]?.[0]); ) ids.push(best[0]);
      return ids;
    }

    /* Without anything asked for: the recorded text and what follows it, seen at the first step. */
    function begin({ text: own = data.text, tokens, at }) {
      halt();
      const asked = (tokens ?? "").split(",").filter(Boolean).map(Number);
      const untouched = tokens === undefined && own === data.text;
      const ids = untouched ? greedyPath() : asked;
      state = { text: own, tokens: ids, at: untouched ? 0 : Math.min(at ?? Infinity, ids.length) };
      text.value = own;
      how.value = "";
      pieces.set(data.end, "</s>");
      if (!live)
        for (const [path, likeliest] of Object.entries(data.steps))
          learn(`${data.text}\0${path}`, likeliest);
      show();
      lookUp();
    }

    // --- Drawing ---

    function show(focus = null) {
      text.readOnly = choice.hidden = !live;
      more.textContent = busy ? "Stop" : `Write ${COUNT} tokens`;
      drawWay();
      drawBars();
      if (focus) root.querySelector(focus)?.focus();
    }

    function drawWay() {
      const tail = state.text.length > TAIL ? state.text.slice(-TAIL) : state.text;
      const start = tail === state.text ? tail : `… ${tail.slice(tail.indexOf(" ") + 1)}`;
      way.replaceChildren(element("span", { class: "prompt" }, start));
      const shown = state.tokens.map((id) => pieces.get(id) ?? "…");
      shown.forEach((piece, place) => {
        const words = piece.replaceAll("▁", " ").replaceAll("\n", "⏎\n");
        way.append(chip(words, `${spoken(piece)} ${chanceOf(place)}`, place));
      });
      if (!hasEnded()) way.append(chip(" ? ", "? what comes next", shown.length));
      (way.querySelector(".visited") ?? way.lastChild).tabIndex = 0;
    }

    function chip(words, name, place) {
      const made = element("span", { role: "button", tabindex: -1, "aria-label": name }, words);
      made.classList.toggle("later", place > state.at);
      if (place === state.at) {
        made.classList.add("visited");
        made.setAttribute("aria-current", "step");
      }
      const visit = () => visitStep(place);
      made.addEventListener("click", visit);
      made.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        visit();
      });
      return made;
    }

    function drawBars() {
      const likeliest = stepAt(state.at), taken = state.tokens[state.at];
      bars.replaceChildren();
      title.textContent = `Step ${state.at + 1}: ${titleOf(likeliest)}`;
      if (!likeliest?.length) return;
      const shown = likeliest.slice(0, BARS);
      const other = likeliest.find(([id]) => id === taken);
      if (other && !shown.includes(other)) shown.splice(-1, 1, other);
      shown.forEach((entry, row) => bars.append(barOf(entry, row, entry[0] === taken)));
      const rest = 1 - shown.reduce((sum, [, , p]) => sum + p, 0);
      const words = element("span", { class: "token" }, "all others");
      bars.append(element("li", { class: "rest" }, words, ...strip(Math.max(0, rest))));
    }

    function titleOf(likeliest) {
      if (likeliest?.length) return "what could come next";
      if (likeliest) return "the text has ended, with </s>";
      if (live) return "the model reads";
      return "not recorded" + (model.place === "page" ? "; load the model to see it" : "");
    }

    const strip = (p) => [
      element("span", { class: "bar" }, element("span", { style: `width: ${100 * p}%` })),
      element("span", { class: "chance" }, percent(p)),
    ];

    function barOf([id, piece, p], row, taken) {
      const made = button("", () => take(id), { "data-id": id, tabindex: row ? -1 : 0 });
      made.append(element("span", { class: "token" }, label(piece)), ...strip(p));
      if (taken) made.append(element("span", { class: "tick" }, "✓"));
      made.classList.toggle("taken", taken);
      return element("li", {}, made);
    }

    /* Says where the reader is now, in one sentence or two. */
    function tell() {
      const [likeliest] = stepAt(state.at) ?? [];
      const last = state.tokens[state.at - 1];
      const came = state.at ? `After “${spoken(pieces.get(last) ?? "…")}”` : "After your text";
      if (last === data.end) say("The text has ended. Go back to a step, or change your text.");
      else if (likeliest)
        say(`${came}, most likely next: “${spoken(likeliest[1])}”, ${percent(likeliest[2])}.`);
      else if (!live) say(`${came}, nothing was recorded.`);
    }

    // --- Going on ---

    function visitStep(place) {
      halt();
      state.at = place;
      arrive(".way [tabindex='0']");
    }

    /* Goes the way of one token. What was written there before is dropped, if it was another. */
    function take(id) {
      halt();
      if (state.tokens[state.at] !== id) state.tokens.splice(state.at, Infinity, id);
      state.at += 1;
      arrive(".bars button");
    }

    async function arrive(focus = null) {
      remember();
      show(focus);
      await lookUp(focus);
      tell();
    }

    function remember() {
      const place = state.at === state.tokens.length ? "" : state.at;
      const own = state.text === data.text ? "" : state.text;
      address.write({ text: own, tokens: state.tokens.join(","), at: place });
    }

    async function goOn(count) {
      readText();
      halt();
      if (count === 1 && state.at < state.tokens.length) {
        state.at += 1; // along what is there
      } else {
        state.tokens.splice(state.at);
        if (live && !hasEnded()) await write(count);
        for (let left = live ? 0 : count; left > 0 && stepAt(state.at)?.length; left--) {
          state.tokens.push(stepAt(state.at)[0][0]);
          state.at += 1;
        }
      }
      arrive();
    }

    /* Lets the model write; each step is shown as it comes. With a count of 0 it only looks. */
    async function write(count, focus = null) {
      const mine = ++run, { text: own, at } = state;
      const sampler = how.value ? { temperature: Number(how.value) } : {};
      const tokens = state.tokens.slice(0, at);
      busy = true;
      show();
      try {
        seed += 1; // so that chance does not repeat itself
        await model.steps({ text: own, tokens, count, sampler, seed }, ({ step, read, of }) => {
          if (mine !== run) return;
          if (!step) {
            title.textContent = `Step ${state.at + 1}: the model reads, ${read} of ${of} tokens`;
            return;
          }
          step.tokens.forEach((id, place) => pieces.set(id, step.pieces[place]));
          learn(`${own}\0${step.tokens.join(",")}`, step.likeliest);
          if (count) [state.tokens, state.at] = [step.tokens, step.tokens.length];
          show();
        });
      } catch (error) {
        say(error.message);
      }
      if (mine !== run) return;
      busy = false;
      show(focus);
    }

    /* Asks the model for the step that is looked at, if it is not known. */
    async function lookUp(focus = null) {
      if (live && !stepAt(state.at)) await write(0, focus);
    }

    function halt() {
      if (busy) model.stop();
      run += 1;
      busy = false;
    }

    function readText() {
      clearTimeout(typing);
      if (text.value === state.text) return;
      halt();
      state = { text: text.value, tokens: [], at: 0 };
      arrive();
    }

    // --- The model ---

    function goLive() {
      live = true;
      known = new Map();
      show();
      text.focus();
      lookUp();
    }

    begin(address.read());
    return () => {
      begin({});
      address.write({});
      say("");
    };
  });
})();
