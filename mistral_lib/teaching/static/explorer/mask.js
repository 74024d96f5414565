/* The mask explorer of chapter 7, "Sliding windows and masks": a mask that a reader can change.

   It loads nothing. What it says about a cell is tested against mistral_lib/masks.py and
   mistral_lib/teaching/plots.py (tests/test_explorer.py). */
(() => {
  "use strict";

  const { element, slider, define } = window.explorers;
  const TEXT = ["def", "area", "(", "width", ")", ":", "return", "width"];
  const LENGTH = TEXT.length;
  const NO_WINDOW = LENGTH + 1; // where the slider for the window ends
  const SYMBOLS = { seen: "●", future: "▸", far: "◂", pad: "×" };
  const KEY = ["● seen", "▸ in the future", "◂ too far back", "× padding"];
  const EMPTY = "∅";
  const BUGS = {
    "": "nothing",
    wider: "W + 1",
    both: "both directions",
    index: "rows counted from zero",
  };
  const START = { window: 4, left: 0, right: 0, first: 0, bug: "" };

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

  function build({ body, say, address }) {
    const windowed = (value) => (value === NO_WINDOW ? "none" : String(value));
    const controls = {
      window: slider("Window W", { min: 1, max: NO_WINDOW, value: 4, show: windowed }, update),
      left: slider("Pads on the left", { min: 0, max: 4, value: 0 }, update),
      right: slider("Pads on the right", { min: 0, max: 3, value: 0 }, update),
      first: slider("First query", { min: 0, max: LENGTH - 1, value: 0 }, update),
    };
    const bug = element("select");
    for (const [value, label] of Object.entries(BUGS)) bug.append(element("option", { value }, label));
    bug.addEventListener("change", update);
    const grid = element("table", { role: "grid", "aria-label": "Mask: queries down, keys across" });
    const form = element("form", {}, ...Object.values(controls).map((control) => control.row));
    form.append(element("label", { class: "wide" }, element("span", {}, "Ring what differs from"), bug));
    form.addEventListener("submit", (event) => event.preventDefault());
    const key = element("p", { class: "key" });
    for (const entry of [...KEY, `${EMPTY} the row sees nothing`]) key.append(element("span", {}, entry), " ");
    body.append(form, grid, key);
    let focus; // of all cells the one that is described, as [query, key]

    function read() {
      const value = (name) => controls[name].get();
      const window = value("window") === NO_WINDOW ? null : value("window");
      const [left, right] = [value("left"), value("right")];
      const isToken = (position) => position >= left && position < LENGTH - right;
      const tokens = TEXT.map((_, i) => (isToken(i) ? TEXT[i - left] : "pad"));
      return { window, left, right, first: value("first"), isToken, tokens, bug: bug.value };
    }

    function update() {
      draw();
      const changed = Object.entries(values()).filter(([name, value]) => value !== START[name]);
      address.write(Object.fromEntries(changed));
      say(sentence());
    }

    function values() {
      const numbers = Object.entries(controls).map(([name, control]) => [name, control.get()]);
      return { ...Object.fromEntries(numbers), bug: bug.value };
    }

    function draw() {
      const state = read();
      focus[0] = Math.max(focus[0], state.first);
      const header = element("tr", {}, element("td"));
      for (const token of state.tokens)
        header.append(element("th", { scope: "col" }, element("span", {}, token)));
      grid.replaceChildren(element("thead", {}, header), element("tbody"));
      for (let query = state.first; query < LENGTH; query += 1)
        grid.tBodies[0].append(row(query, state));
      mark();
    }

    function row(query, state) {
      const made = element("tr", {}, element("th", { scope: "row" }, state.tokens[query]));
      for (let key = 0; key < LENGTH; key += 1) {
        const isToken = state.isToken(key);
        const why = verdict(query, key, state.window, isToken);
        const wrong =
          state.bug !== "" &&
          broken(state.bug, query, key, state.window, isToken, state.first) !== (why === "seen");
        const cell = { query, key, tokens: state.tokens, why };
        const box = element("td", { role: "gridcell", tabindex: -1, class: `is-${why}` }, SYMBOLS[why]);
        box.classList.toggle("ringed", wrong);
        box.dataset.place = `${query},${key}`;
        box.setAttribute("aria-label", explain(cell, state.window) + (wrong ? " Differs." : ""));
        made.append(box);
      }
      if (!made.querySelector(".is-seen")) {
        made.classList.add("is-empty");
        made.cells[0].prepend(`${EMPTY} `);
      }
      return made;
    }

    const at = ([query, key]) => grid.querySelector(`[data-place="${query},${key}"]`);

    /* Outlines the cell that is described, its query and its key. */
    function mark() {
      for (const old of grid.querySelectorAll(".described")) old.classList.remove("described");
      const cell = at(focus);
      cell.tabIndex = 0;
      for (const part of [cell, cell.parentNode.cells[0], grid.tHead.rows[0].cells[focus[1] + 1]])
        part.classList.add("described");
    }

    function sentence() {
      const rings = grid.querySelectorAll(".ringed").length;
      const empty = grid.querySelectorAll(".is-empty").length;
      const parts = [at(focus).getAttribute("aria-label")];
      if (bug.value) {
        const differ = rings === 1 ? "1 cell differs" : `${rings} cells differ`;
        parts.push(`${differ} from ${BUGS[bug.value]}.`);
      }
      if (empty) parts.push(empty === 1 ? "1 row sees nothing." : `${empty} rows see nothing.`);
      return parts.join(" ");
    }

    function move(place, withFocus) {
      const target = at(place);
      if (target === null) return;
      at(focus).tabIndex = -1;
      focus = place;
      mark();
      if (withFocus) target.focus();
      say(sentence());
    }

    grid.addEventListener("keydown", (event) => {
      const [query, key] = focus;
      const top = controls.first.get(), end = LENGTH - 1;
      const place = {
        ArrowUp: [query - 1, key],
        ArrowDown: [query + 1, key],
        ArrowLeft: [query, key - 1],
        ArrowRight: [query, key + 1],
        Home: [event.ctrlKey ? top : query, 0],
        End: [event.ctrlKey ? end : query, end],
        PageUp: [top, key],
        PageDown: [end, key],
      }[event.key];
      if (place === undefined) return;
      event.preventDefault();
      move(place, true);
    });
    for (const kind of ["mouseover", "focusin"]) {
      grid.addEventListener(kind, (event) => {
        const place = event.target.dataset.place;
        if (place !== undefined) move(place.split(",").map(Number), false);
      });
    }

    function begin(asked) {
      focus = [LENGTH - 2, 3]; // the query "return" and the key "width"
      for (const [name, control] of Object.entries(controls)) control.set(asked[name] ?? START[name]);
      bug.value = asked.bug in BUGS ? asked.bug : "";
      draw();
    }

    begin(address.read());
    say(sentence());
    return () => {
      begin({});
      update();
    };
  }

  window.maskExplorer = { canSee, verdict };
  define("mask", "Mask", build);
})();
