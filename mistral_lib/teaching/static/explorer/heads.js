/* The explorer "Heads" of chapter 4: where each head looks from a token, and what it writes there.

   It starts from what was recorded of one text (mistral_lib/teaching/heads_explorer.py), and asks the
   model for any text once there is one. Tested against Python (tests/test_heads_explorer.py). */
(() => {
  "use strict";

  const { element, button, rove, define, model, loader, percent, label, spoken } = window.explorers;
  const LONGEST = 1000, KEYS = 5, FAINT = 0.005;
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const NAMED = 3; // tokens that a head raises most, and as many that it lowers

  const TOKENS_KEY =
    "Choose a token to look back from it. A box is filled as high as the weight of its token. " +
    "▸ marks the future, which the mask hides.";
  const HEADS_KEY =
    "Choose a head. Its bars are the weights of the tokens, the first on the left and the last on " +
    "the right.";

  // --- What a head does at a token ---

  function softmax(scores) {
    const largest = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - largest));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  }

  /* Takes one number after another out of a text of digits to the base 64. */
  function unpacker(text, ranges) {
    let at = 0;
    const one = ([digits, low, high]) => {
      let whole = 0;
      for (let left = digits; left > 0; left--) whole = 64 * whole + DIGITS.indexOf(text[at++]);
      return low + (whole / (64 ** digits - 1)) * (high - low);
    };
    return (name, count) => Array.from({ length: count }, () => one(ranges[name]));
  }

  /* What was recorded of all heads at one token, in the form in which the model's program gives it. */
  function recordedRow(data, place) {
    const { windows, heads, group, ranges, pieces } = data, words = data.words.split(" ");
    const take = unpacker(data.rows[place], ranges);
    const keyHeads = heads / group, sizes = unpacker(data.values, ranges);
    const all = windows.map(() => pieces.map(() => sizes("size", keyHeads)));
    const blocks = windows.map((window, block) => {
      const [stream] = take("size", 1), first = Math.max(0, place + 1 - (window ?? Infinity));
      const one = (_, head) => {
        const [highest] = take("score", 1);
        const scores = take("drop", place + 1 - first).map((drop) => highest - drop * drop);
        const [written] = take("written", 1);
        const named = take("word", 2 * NAMED).map((word) => words[Math.round(word)]);
        const effects = take("effect", 2 * NAMED).map((effect, i) => [named[i], effect]);
        const values = all[block].slice(first, place + 1).map((own) => own[Math.floor(head / group)]);
        const [raised, lowered] = [effects.slice(0, NAMED), effects.slice(NAMED)];
        return { first, scores, values, written, raised, lowered };
      };
      return { stream, heads: Array.from({ length: heads }, one) };
    });
    return { place, pieces, left: 0, blocks };
  }

  // --- The explorer ---

  function build({ root, body, data, say, address }) {
    let row = null; // what is shown, or null where nothing is known
    let state, live = false, typing, asked = 0;

    const text = element("textarea", { rows: 3, maxlength: LONGEST, spellcheck: "false" });
    const words = element("label", { class: "wide" }, element("span", {}, "Your text"), text);
    const { load, progress, note } = loader(root, data.megabytes, say, goLive);
    const title = element("p", { class: "step" });
    const tokens = element("div", { class: "tokens", role: "toolbar" });
    tokens.setAttribute("aria-label", "Tokens. Choose the one that looks back");
    const overview = element("table", { role: "grid", "aria-label": "Heads. Choose one" });
    const steps = element("div", { class: "steps" });
    const actions = element("p", { class: "actions" }, load);
    const choice = element("div", {}, element("p", { class: "step" }, "All heads at this token"));
    choice.append(element("p", { class: "key" }, HEADS_KEY), overview);
    const both = element("div", { class: "both" }, choice, steps);
    const key = element("p", { class: "key" }, TOKENS_KEY);
    body.append(words, progress, note, actions, title, key, tokens, both);
    rove(tokens, "button", ["ArrowLeft", "ArrowRight"]);
    text.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(readText, 400);
    });

    const headAt = (block, head) => row.blocks[block].heads[head];
    const nameOf = ([block, head]) => `${block}.${head}`;
    const quoted = (place) => `“${spoken(row.pieces[place])}”`;
    const short = (value) => value.toFixed(1);
    const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

    /* The weight of each token of the text; null where the mask hides it. */
    function weightsOf({ first, scores }) {
      const weights = row.pieces.map(() => null);
      softmax(scores).forEach((weight, key) => (weights[first + key] = weight));
      return weights;
    }

    const most = (weights) => weights.indexOf(Math.max(...weights.map((weight) => weight ?? 0)));

    // --- Drawing ---

    function show(focus = null) {
      words.hidden = !live && state.text === data.text;
      text.readOnly = !live;
      tokens.hidden = key.hidden = both.hidden = !row;
      if (!row) {
        title.textContent = live ? "The model reads" : "Not recorded; load the model to see it";
        return;
      }
      const { place, pieces, left } = row;
      const rest = left ? `. The text is cut after ${pieces.length} tokens.` : "";
      const name = `Head ${nameOf(state.head)} looks back from `;
      const where = element("span", { class: "token" }, label(pieces[place]));
      title.replaceChildren(name, where, `, token ${place}${rest}`);
      drawTokens();
      drawOverview();
      drawSteps();
      if (focus) root.querySelector(focus)?.focus();
    }

    function drawTokens() {
      const weights = weightsOf(headAt(...state.head));
      const first = weights.findIndex((weight) => weight !== null);
      tokens.replaceChildren();
      row.pieces.forEach((piece, place) => {
        tokens.append(boxOf(piece, place, weights[place], first));
        const ends = piece.endsWith("\n") && !row.pieces[place + 1]?.startsWith("\n");
        if (ends) tokens.append(element("span", { class: "break" }));
      });
    }

    function boxOf(piece, place, weight, first) {
      const hidden = weight === null, query = place === row.place;
      const mark = hidden ? (place > row.place ? "▸" : "◂") : weight < FAINT ? "" : whole(weight);
      const why = place < first ? "hidden, too far back" : "hidden, in the future";
      const name = `${spoken(piece)}, token ${place}: ${hidden ? why : percent(weight)}`;
      const made = button("", () => visit(place), { tabindex: query ? 0 : -1, "aria-label": name });
      made.append(
        element("span", { class: "fill", style: `height: ${100 * (weight ?? 0)}%` }),
        element("span", { class: "token" }, label(piece)),
        element("span", { class: "weight", "data-weight": mark }), // its name says it exactly
      );
      made.classList.toggle("masked", hidden);
      if (query) made.setAttribute("aria-current", "true");
      return made;
    }

    const whole = (weight) => `${Math.round(100 * weight)}%`;

    function drawOverview() {
      const header = element("tr", {}, element("td", {}, "head"));
      row.blocks[0].heads.forEach((_, head) =>
        header.append(element("th", { scope: "col", "aria-label": `head ${head}` }, `${head}`)),
      );
      overview.replaceChildren(element("thead", {}, header), element("tbody"));
      row.blocks.forEach(({ heads }, block) => {
        const line = element("tr", {}, element("th", { scope: "row" }, `block ${block}`));
        heads.forEach((found, head) => line.append(cellOf(found, [block, head])));
        overview.tBodies[0].append(line);
      });
    }

    function cellOf(found, place) {
      const weights = weightsOf(found), best = most(weights);
      const name = `Head ${nameOf(place)}: ${whole(weights[best])} on ${quoted(best)}, token ${best}`;
      const chosen = nameOf(place) === nameOf(state.head);
      const cell = element("td", { role: "gridcell", tabindex: chosen ? 0 : -1, "aria-label": name });
      cell.setAttribute("aria-selected", chosen);
      cell.title = name;
      cell.dataset.place = nameOf(place);
      cell.innerHTML = patternOf(weights);
      return cell;
    }

    /* The weights as small bars, from the first token of the text to the last. */
    function patternOf(weights) {
      const count = weights.length, wide = Math.max(1, count / 24);
      const bars = weights.map((weight, key) => {
        if (weight === null || weight < 0.01) return "";
        const left = Math.min(key, count - wide);
        return `M${left.toFixed(2)} 1v${-weight.toFixed(3)}h${wide.toFixed(2)}V1z`;
      });
      const box = `viewBox="0 0 ${count} 1" preserveAspectRatio="none"`;
      return `<svg ${box} aria-hidden="true"><path d="${bars.join("")}"/></svg>`;
    }

    function drawSteps() {
      const [block, head] = state.head, found = headAt(block, head), weights = weightsOf(found);
      const seen = weights.map((_, key) => key).filter((key) => weights[key] !== null);
      const order = seen.sort((a, b) => weights[b] - weights[a]), shown = order.slice(0, KEYS);
      const table = element("table", { class: "keys" });
      const header = element("tr");
      for (const name of ["Key", "Score", "Weight", "Length of value"])
        header.append(element("th", { scope: "col" }, name));
      table.append(element("thead", {}, header), element("tbody"));
      for (const key of shown) {
        const at = key - found.first;
        const cells = [short(found.scores[at]), percent(weights[key]), short(found.values[at])];
        table.tBodies[0].append(lineOf(label(row.pieces[key]), `${key}`, cells));
      }
      const others = order.slice(KEYS), rest = others.reduce((sum, key) => sum + weights[key], 0);
      if (others.length) {
        const count = others.length === 1 ? "1 other" : `${others.length} others`;
        table.tBodies[0].append(lineOf(count, "", ["", percent(rest), ""]));
      }
      const { stream } = row.blocks[block], { written, raised, lowered } = found;
      const masked = row.pieces.length - order.length;
      const hides = masked === 1 ? "1 token" : `${masked} tokens`;
      steps.replaceChildren(
        element("p", { class: "step" }, `What head ${nameOf(state.head)} does`),
        element("p", {}, `A score is q · k / √${data.size}, the query's product with a key. `,
          masked ? `The mask hides ${hides}. ` : "", "The softmax makes weights of the scores."),
        table,
        element("p", {}, "The values, each times its weight, are added up and go through the head's " +
          `rows of the output projection. What it writes has the length ${short(written)}, and is ` +
          `added to a vector of the length ${short(stream)}.`),
        element("p", {}, "The logits that this raises most: ", ...named(raised)),
        element("p", {}, "The logits that this lowers most: ", ...named(lowered)),
      );
    }

    function lineOf(piece, place, cells) {
      const name = element("th", { scope: "row" });
      const token = element("span", { class: "token" }, piece);
      if (place) name.append(token, " ", element("span", { class: "place" }, place));
      else name.append(piece);
      return element("tr", {}, name, ...cells.map((cell) => element("td", {}, cell)));
    }

    const named = (effects) =>
      effects.map(([piece, effect]) => {
        const token = element("span", { class: "token" }, label(piece));
        return element("span", { class: "favoured" }, token, ` ${signed(effect)}`);
      });

    function tell() {
      const found = headAt(...state.head), weights = weightsOf(found), best = most(weights);
      const looks = `gives ${percent(weights[best])} of its weight to ${quoted(best)}, token ${best}`;
      const favours = `It raises “${spoken(found.raised[0][0])}” most.`;
      say(`From ${quoted(row.place)}, head ${nameOf(state.head)} ${looks}. ${favours}`);
    }

    // --- Choosing ---

    async function visit(place) {
      state.place = place;
      await lookUp(".tokens [tabindex='0']");
    }

    function choose(head, focus) {
      state.head = head;
      remember();
      show(focus);
      tell();
    }

    const CELL = "td[tabindex='0']";
    overview.addEventListener("click", ({ target }) => {
      const cell = target.closest("td[data-place]");
      if (cell) choose(cell.dataset.place.split(".").map(Number), CELL);
    });
    overview.addEventListener("keydown", (event) => {
      const [block, head] = state.head, { length } = row.blocks[0].heads;
      const ends = { top: 0, bottom: row.blocks.length - 1 };
      const to = {
        ArrowUp: [block - 1, head],
        ArrowDown: [block + 1, head],
        ArrowLeft: [block, head - 1],
        ArrowRight: [block, head + 1],
        Home: [event.ctrlKey ? ends.top : block, 0],
        End: [event.ctrlKey ? ends.bottom : block, length - 1],
        PageUp: [ends.top, head],
        PageDown: [ends.bottom, head],
      }[event.key];
      if (!to) return;
      event.preventDefault();
      if (row.blocks[to[0]]?.heads[to[1]]) choose(to, CELL);
    });

    function remember() {
      const values = { text: state.text, at: String(row?.place ?? ""), head: nameOf(state.head) };
      const start = { text: data.text, at: String(data.rows.length - 1), head: nameOf(data.start) };
      if (state.text !== data.text) delete start.at;
      for (const [key, value] of Object.entries(start)) if (values[key] === value) values[key] = "";
      address.write(values);
    }

    // --- What is known ---

    /* Shows all heads at the token that is chosen, as soon as they are known. */
    async function lookUp(focus = null, quiet = false) {
      const mine = ++asked, known = !live && state.text === data.text;
      if (known) row = recordedRow(data, Math.min(state.place, data.rows.length - 1));
      else if (!live) row = null;
      else if (!(await askModel(mine))) return;
      remember();
      show(focus);
      if (row && !quiet) tell();
    }

    async function askModel(mine) {
      const question = { text: state.text, place: state.place };
      let found = null;
      try {
        await model.heads(question, ({ row: answer, read, of }) => {
          if (answer) found = answer;
          else if (mine === asked) title.textContent = `The model reads, ${read} of ${of} tokens`;
        });
      } catch (error) {
        say(error.message);
      }
      if (!found || mine !== asked) return false;
      row = found;
      return true;
    }

    function readText() {
      clearTimeout(typing);
      if (text.value === state.text) return;
      Object.assign(state, { text: text.value, place: Infinity });
      lookUp();
    }

    function goLive() {
      live = true;
      show();
      text.focus();
      lookUp();
    }

    /* What is asked for, or else the last token of the recorded text. */
    function begin({ text: own = data.text, at, head }) {
      const asks = (head ?? "").split(".").map(Number);
      const exists = asks[0] < data.windows.length && asks[1] < data.heads;
      const place = at === undefined || isNaN(at) ? Infinity : Math.max(0, Number(at));
      state = { text: own, place, head: exists ? asks : data.start };
      text.value = own;
      return lookUp(null, true);
    }

    begin(address.read());
    return () => {
      begin({});
      say("");
    };
  }

  window.headsExplorer = { recordedRow, softmax };
  define("heads", "Heads", build);
})();
