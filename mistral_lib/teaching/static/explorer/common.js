/* What all explorers share: elements, a frame with a name and a reset, the state in the address, and
   the shipped model in its worker. An explorer is an element of the class "NAME-explorer"; the file
   NAME.js builds it. Written for the rendered book, where these files are, and for JupyterLab and
   Colab, where a cell carries them with it (mistral_lib/teaching/explorers.py). */
(() => {
  "use strict";

  const source = document.currentScript?.src ?? ""; // empty in a notebook

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function button(label, pressed, attributes = {}) {
    const made = element("button", { type: "button", ...attributes }, label);
    made.addEventListener("click", pressed);
    return made;
  }

  /* A slider with its value beside it, as `show` words it: that is also what is read out. */
  function slider(label, { min, max, step = 1, value, show = String }, changed) {
    const input = element("input", { type: "range", min, max, step, value });
    const shown = element("span", { class: "value", "aria-hidden": "true" });
    const update = () => {
      shown.textContent = show(Number(input.value));
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => (update(), changed()));
    update();
    const set = (to) => ((input.value = to), update());
    const row = element("label", {}, element("span", {}, label), input, shown);
    return { input, row, set, get: () => Number(input.value) };
  }

  /* The state of an explorer in the address of the page, as ?NAME.key=value; its own part alone. */
  function addressOf(name) {
    const own = (key) => key.startsWith(`${name}.`);
    return {
      read() {
        const found = source ? [...new URLSearchParams(location.search)] : [];
        return Object.fromEntries(
          found.filter(([key]) => own(key)).map(([key, value]) => [key.slice(name.length + 1), value]),
        );
      },
      write(values) {
        if (!source) return;
        const url = new URL(location.href);
        for (const key of [...url.searchParams.keys()].filter(own)) url.searchParams.delete(key);
        for (const [key, value] of Object.entries(values))
          if (value !== "") url.searchParams.set(`${name}.${key}`, value);
        try {
          history.replaceState(history.state, "", url);
        } catch {
          // Pages from the disk may keep their address.
        }
      },
    };
  }

  /* Arrow keys, Home and End move the focus among items, of which one is a stop of the Tab key. */
  function rove(container, selector, [back, on]) {
    container.addEventListener("keydown", (event) => {
      const items = [...container.querySelectorAll(selector)];
      const at = items.indexOf(event.target);
      const to = { [back]: at - 1, [on]: at + 1, Home: 0, End: items.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      if (!items[to]) return;
      for (const item of items) item.tabIndex = -1;
      items[to].tabIndex = 0;
      items[to].focus();
    });
  }

  /* Registers an explorer and builds those that are on the page.
     `build` gets what it may use and returns the function that resets it. */
  function define(name, title, build) {
    const start = () => {
      for (const root of document.querySelectorAll(`.${name}-explorer:not([data-started])`)) {
        root.dataset.started = "";
        const json = root.querySelector("script[type='application/json']");
        const data = json ? JSON.parse(json.textContent) : {};
        const caption = root.querySelector(".caption");
        root.classList.add("explorer");
        root.setAttribute("role", "group");
        root.setAttribute("aria-label", title);
        const body = element("div");
        const status = element("p", { role: "status" });
        const reset = button("Reset", () => begin());
        const head = element("p", { class: "head" }, element("strong", {}, title), reset);
        root.replaceChildren(head, body, status, ...(caption ? [caption] : []));
        replacePicture(root);
        // One polite live region for all that an explorer has to say.
        const say = (sentence) => (status.textContent = sentence);
        const begin = build({ root, body, data, say, address: addressOf(name) });
      }
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
    else start();
  }

  /* Takes the place of the still picture that stands for the explorer where nothing runs. */
  function replacePicture(root) {
    const cell = root.closest(".cell_output, .jp-OutputArea, #output-area, .output_area");
    const figure = cell?.querySelector("figure");
    if (figure) {
      figure.querySelectorAll("picture, :scope > img, .enlarge").forEach((still) => still.remove());
      figure.prepend(root);
    } else {
      const stills = cell?.querySelectorAll("img") ?? [];
      if (stills.length) stills[stills.length - 1].remove();
    }
  }

  // --- The model ---

  let worker = null, count = 0, loading = null;
  const waiting = new Map();

  function ask(question, hear = () => null) {
    return new Promise((resolve, reject) => {
      waiting.set(++count, { hear, resolve, reject });
      worker.postMessage({ ...question, id: count });
    });
  }

  function startWorker() {
    worker = new Worker(new URL("../model/worker.js", source), { type: "module" });
    worker.onmessage = ({ data }) => {
      const { hear, resolve, reject } = waiting.get(data.id);
      if (data.error || data.done) waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else if (data.done) resolve();
      else hear(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      const reason = event.message ? ` (${event.message})` : "";
      for (const { reject } of waiting.values())
        reject(new Error(`The model's program could not start${reason}. Reload the page.`));
      waiting.clear();
      worker = null;
    };
  }

  const model = {
    /* Where it can run: "page"; otherwise "disk", "notebook". */
    place: source.startsWith("http") ? "page" : source ? "disk" : "notebook",
    /* Loads it once for all explorers of a page. `hear` is told { loaded, total } and { stored }. */
    load(hear) {
      if (!worker) startWorker();
      loading ??= ask({ do: "load" }, hear).catch((error) => {
        loading = null; // it may be tried again
        throw error;
      });
      return loading;
    },
    /* See worker.js. */
    steps: (question, hear) => ask({ do: "steps", ...question }, hear),
    heads: (question, hear) => ask({ do: "heads", ...question }, hear),
    stop: () => ask({ do: "stop" }),
  };

  const WITHOUT_MODEL = {
    page: "These are recorded values. Load the model to type your own text.",
    disk:
      "These are recorded values, because a page that is opened from the disk cannot load the " +
      "model. Run “make serve” in the book's repository, and open http://localhost:8000 instead.",
    notebook:
      "These values were computed when the cell ran. For another text, change it in the cell and " +
      "run the cell again.",
  };

  /* The button that loads the model, how far it is, and what an explorer shows without it.
     `ready` is called when the model is there. */
  function loader(root, megabytes, say, ready) {
    const load = button(`Load the model (${megabytes.toFixed(1)} MB)`, start);
    const bar = element("progress", { "aria-label": "How much of the model is loaded" });
    const amount = element("span");
    const progress = element("p", { hidden: "" }, bar, amount);
    const note = element("p", { class: "note" }, WITHOUT_MODEL[model.place]);
    load.hidden = model.place !== "page";

    function hear({ loaded, total, stored }) {
      if (stored !== undefined) root.dataset.stored = stored;
      if (!total) return;
      [bar.max, bar.value] = [total, loaded];
      amount.textContent = ` ${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
    }

    async function start() {
      load.disabled = true;
      progress.hidden = false;
      say("The model is loading.");
      try {
        await model.load(hear);
        load.hidden = note.hidden = true;
        say("The model is loaded. Now you can type your own text.");
        ready();
      } catch (error) {
        say(error.message);
      }
      load.disabled = false;
      progress.hidden = true;
    }
    return { load, progress, note };
  }

  const percent = (p) => `${(100 * p).toFixed(1)}%`;
  /* A token as a label shows it, and as a sentence says it. */
  const label = (piece) => piece.replaceAll("\n", "⏎");
  const spoken = (piece) => label(piece).replaceAll("▁", " ").trim() || "a space";

  window.explorers = {
    ...{ element, button, slider, rove, define, model, loader, percent, label, spoken },
  };
})();
