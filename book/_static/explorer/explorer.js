/* The mask explorer of chapter 7, "Sliding windows and masks".

   Every element of the class "mask-explorer" becomes a mask that a reader can change with the mouse or
   the keyboard. It loads nothing and keeps nothing. What it says about a cell is tested against
   mistral_lib/masks.py and mistral_lib/teaching/plots.py (tests/test_explorer.py). */
(() => {
  "use strict";

  const TEXT = ["def", "area", "(", "width", ")", ":", "return", "width"];
  const LENGTH = TEXT.length;
  const NO_WINDOW = LENGTH + 1; // where the slider for the window ends
  const SYMBOLS = { seen: "●", future: "▸", far: "◂", pad: "×" };
  const KEY = "● seen   ▸ in the future   ◂ too far back   × padding";
  const BUGS = {
    "": "nothing",
    wider: "W + 1",
    both: "both directions",
    index: "rows counted from zero",
  };

  /* Whether a query may see a key: mistral_lib.masks.can_see. A window of null is none. */
  function canSee(query, key, window) {
    const distance = query - key;
    return distance >= 0 && (window === null || distance < window);
  }

  /* "seen", or the first rule that hides the key: mistral_lib.teaching.plots.mask_symbols. */
  function verdict(query, key, window, isToken) {
    if (query < key) return "future";
    if (!canSee(query, key, window)) return "far";
    return isToken ? "seen" : "pad";
  }

  /* What a broken mask says about the same cell. */
  function broken(bug, query, key, window, isToken, firstQuery) {
    const size = window === null ? Infinity : window;
    if (bug === "both") return Math.abs(query - key) < size && isToken;
    if (bug === "index") return canSee(query - firstQuery, key, window) && isToken;
    return canSee(query, key, size + 1) && isToken;
  }

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function slider(label, minimum, maximum, value, changed) {
    const input = element("input", { type: "range", min: minimum, max: maximum, value });
    const output = element("output");
    input.addEventListener("input", changed);
    return { input, output, row: element("label", {}, element("span", {}, label), input, output) };
  }

  function explain(cell, window) {
    const { query, key, tokens, why } = cell;
    const distance = query - key;
    const names = `Query ${query} “${tokens[query]}”, key ${key} “${tokens[key]}”`;
    const pair = `${names}: distance ${distance}`;
    return {
      seen: `${pair}. Seen.`,
      future: `${pair}. Hidden: the key is in the future.`,
      far: `${pair}. Hidden: ${distance} is not below W = ${window}.`,
      pad: `${pair}. Hidden: the key is padding.`,
    }[why];
  }

  function build(root) {
    const update = () => draw();
    const controls = {
      window: slider("Window W", 1, NO_WINDOW, 4, update),
      left: slider("Pads on the left", 0, 4, 0, update),
      right: slider("Pads on the right", 0, 3, 0, update),
      first: slider("First query", 0, LENGTH - 1, 0, update),
    };
    const bug = element("select");
    for (const [value, label] of Object.entries(BUGS)) bug.append(element("option", { value }, label));
    bug.addEventListener("change", update);
    const grid = element("table", { role: "grid", "aria-label": "Mask: queries down, keys across" });
    const status = element("p", { role: "status" });
    const form = element("form", {}, ...Object.values(controls).map((control) => control.row));
    form.append(element("label", { class: "wide" }, element("span", {}, "Ring what differs from"), bug));
    form.addEventListener("submit", (event) => event.preventDefault());
    root.replaceChildren(form, grid, element("p", { class: "key" }, KEY), status);
    let focus = [LENGTH - 2, 3]; // the query "return" and the key "width"

    function read() {
      const value = (name) => Number(controls[name].input.value);
      const window = value("window") === NO_WINDOW ? null : value("window");
      const [left, right] = [value("left"), value("right")];
      const isToken = (position) => position >= left && position < LENGTH - right;
      const tokens = TEXT.map((_, i) => (isToken(i) ? TEXT[i - left] : "pad"));
      return { window, left, right, first: value("first"), isToken, tokens, bug: bug.value };
    }

    function draw() {
      const state = read();
      controls.window.output.value = state.window === null ? "none" : state.window;
      for (const name of ["left", "right", "first"]) controls[name].output.value = state[name];
      focus[0] = Math.max(focus[0], state.first);
      let differing = 0;
      const header = element("tr", {}, element("td"));
      for (const token of state.tokens) header.append(element("th", { scope: "col" }, element("span", {}, token)));
      grid.replaceChildren(element("thead", {}, header), element("tbody"));
      for (let query = state.first; query < LENGTH; query += 1) {
        const row = element("tr", {}, element("th", { scope: "row" }, state.tokens[query]));
        for (let key = 0; key < LENGTH; key += 1) {
          const isToken = state.isToken(key);
          const why = verdict(query, key, state.window, isToken);
          const wrong =
            state.bug !== "" &&
            broken(state.bug, query, key, state.window, isToken, state.first) !== (why === "seen");
          differing += wrong;
          const cell = { query, key, tokens: state.tokens, why };
          const box = element("td", { role: "gridcell", tabindex: -1, class: `is-${why}` }, SYMBOLS[why]);
          box.classList.toggle("ringed", wrong);
          box.dataset.place = `${query},${key}`;
          box.setAttribute("aria-label", explain(cell, state.window) + (wrong ? " Differs." : ""));
          row.append(box);
        }
        grid.tBodies[0].append(row);
      }
      at(focus).tabIndex = 0;
      say(differing);
    }

    function at([query, key]) {
      return grid.querySelector(`[data-place="${query},${key}"]`);
    }

    function say(differing = grid.querySelectorAll(".ringed").length) {
      const count = bug.value === "" ? "" : ` ${differing} cells differ from ${BUGS[bug.value]}.`;
      status.textContent = at(focus).getAttribute("aria-label") + count;
    }

    function move(place, withFocus) {
      const target = at(place);
      if (target === null) return;
      at(focus).tabIndex = -1;
      focus = place;
      target.tabIndex = 0;
      if (withFocus) target.focus();
      say();
    }

    grid.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const step = steps[event.key];
      if (step === undefined) return;
      event.preventDefault();
      move([focus[0] + step[0], focus[1] + step[1]], true);
    });
    for (const kind of ["mouseover", "focusin"]) {
      grid.addEventListener(kind, (event) => {
        const place = event.target.dataset.place;
        if (place !== undefined) move(place.split(",").map(Number), false);
      });
    }
    draw();
  }

  window.maskExplorer = { build, canSee, verdict };
  const start = () => document.querySelectorAll(".mask-explorer").forEach(build);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
