/* The shipped model in a thread of its own, so that the page stays alive while it computes.

   A page sends { id, do, ... }; every answer has the id of its question, and the last one says `done`.
   { do: "load" }                              answers { loaded, total } in bytes, then { stored }
   { do: "steps", text, tokens, count, sampler, seed, whole }
                                               answers a { step } after the text and its tokens, and
                                               one more after each of `count` tokens that it writes
   { do: "heads", text, place }                answers { row }: what all heads do at a token of the text,
                                               see heads.js
   { do: "stop" }                              ends what is being read or written
   A step is what comes next, the likeliest first: { tokens, pieces, likeliest: [[id, piece, p]] }.
   Its tokens and their pieces are those after the text. After the end nothing is likely. If it is
   asked for as a whole, it has all logits too, and the tokens that were `used`.
   What goes wrong is answered by { error }, a sentence. */
import { Mistral, Tokenizer, choose, readTensors, seeded, softmax } from "./mistral.js";

const SHOWN = 40; // tokens of a step that are sent; the page knows that the others sum to the rest
const MOST = 128, NAMED = 3; // tokens whose heads are kept, and tokens that a head favours
const STORE = "build-mistral-model-";
const here = (name) => new URL(name, import.meta.url).href;
const answer = (id, message) => postMessage({ id, ...message });
const breathe = () => new Promise((done) => setTimeout(done)); // lets a message in
let model, tokenizer, latest = 0;
let read = [], logits = null; // the tokens that the model's cache has read, and what it gave then

// --- The files ---

/* The names and sizes of the files. Without a network, those of the version in the browser's store. */
async function readIndex() {
  let response;
  try {
    response = await fetch(here("index.json"), { cache: "no-cache" });
  } catch {
    const names = (await storeNames()).filter((name) => name.startsWith(STORE));
    const store = names.length ? await caches.open(names.at(-1)) : null;
    response = await store?.match(here("index.json"));
    if (!response) throw new Said("The model's files cannot be reached. Are you offline?");
  }
  if (!response.ok) throw missing("index.json", response);
  return response;
}

const storeNames = async () => (await globalThis.caches?.keys().catch(() => null)) ?? [];
const missing = (name, { status }) =>
  new Said(`The model's file ${name} is not on the server (${status}). Build the book again.`);

/* An error whose message is for the reader. */
class Said extends Error {}

/* All files, from the store or else from the server, and then kept in the store if there is one. */
async function fetchFiles(report) {
  const response = await readIndex();
  const { version, files } = await response.clone().json();
  const total = Object.values(files).reduce((a, b) => a + b);
  const store = globalThis.caches ? await caches.open(STORE + version).catch(() => null) : null;
  const found = {};
  let loaded = 0, stored = true;
  for (const [name, size] of Object.entries(files)) {
    const address = here(`${name}?v=${version}`);
    let file = await store?.match(address);
    if (!file) {
      stored = false;
      file = await fetch(address).catch(() => {
        throw new Said("The connection broke off while the model was loading. Try again.");
      });
      if (!file.ok) throw missing(name, file);
    }
    const bytes = new Uint8Array(size);
    let at = 0;
    for await (const piece of pieces(file)) {
      if (at + piece.length <= size) bytes.set(piece, at);
      at += piece.length;
      report({ loaded: loaded + Math.min(at, size), total });
    }
    if (at !== size) {
      await store?.delete(address);
      throw new Said(`The file ${name} has ${at} bytes and not ${size}. Load the model again.`);
    }
    loaded += size;
    found[name] = bytes;
    // A store that is full or forbidden is no obstacle.
    if (!stored) await store?.put(address, new Response(bytes)).catch(() => null);
  }
  await store?.put(here("index.json"), response).catch(() => null);
  for (const name of await storeNames())
    if (name.startsWith(STORE) && name !== STORE + version) await caches.delete(name);
  return { found, stored };
}

/* The body of a response, piece by piece: its length need not be known. */
async function* pieces(response) {
  const reader = response.body.getReader();
  while (true) {
    const { done, value } = await reader.read().catch(() => {
      throw new Said("The connection broke off while the model was loading. Try again.");
    });
    if (done) return;
    yield value;
  }
}

async function load(id) {
  const { found, stored } = await fetchFiles((progress) => answer(id, progress));
  const config = JSON.parse(new TextDecoder().decode(found["config.json"]));
  model = new Mistral(config, readTensors(found["model.safetensors"].buffer));
  tokenizer = new Tokenizer(found["tokenizer.model"]);
  read = [];
  answer(id, { stored });
}

// --- Reading and writing ---

/* The logits after some tokens. What the cache holds already is not read again. */
async function logitsOf(ids, alive, report) {
  let same = 0;
  while (same < ids.length && ids[same] === read[same]) same++;
  if (same === ids.length && same === read.length) return logits;
  same = Math.min(same, ids.length - 1);
  // Going back is free until the cache begins to overwrite its slots.
  if (same < read.length && read.length > model.window) same = 0;
  if (same === 0) model.forget();
  model.position = same;
  read = ids.slice(0, same);
  for (const id of ids.slice(same)) {
    logits = model.read(id);
    read.push(id);
    if (read.length % 8 === 0) {
      report({ read: read.length, of: ids.length });
      await breathe();
      if (!alive()) return null;
    }
  }
  return logits;
}

function step(tokens, logits) {
  const piece = (id) => tokenizer.pieces[id].text;
  const probabilities = logits ? softmax(logits) : [];
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const likeliest = order.slice(0, SHOWN).map((id) => [id, piece(id), probabilities[id]]);
  return { tokens: [...tokens], pieces: tokens.map(piece), likeliest };
}

async function steps({ id, text, tokens = [], count = 0, sampler = {}, seed = 0, whole }) {
  const prompt = [tokenizer.start, ...tokenizer.encode(text)];
  const written = [...tokens], random = seeded(seed);
  const alive = () => id === latest;
  for (let left = count; alive(); left--) {
    const ended = written.at(-1) === tokenizer.end;
    const ids = [...prompt, ...written];
    const next = ended ? [] : await logitsOf(ids, alive, (progress) => answer(id, progress));
    if (next === null) return;
    const all = whole ? { logits: next, used: [...new Set(ids)] } : {};
    answer(id, { step: { ...step(written, ended ? null : next), ...all } });
    if (ended || left === 0) return;
    written.push(choose(next, sampler, random, new Set(ids)));
    await breathe();
  }
}

// --- Looking at heads (chapter 4) ---

let kept = { text: null }; // the text that was read last, token by token

async function readHeads(id, text) {
  const all = [tokenizer.start, ...tokenizer.encode(text)];
  const ids = all.slice(0, MOST), traces = [];
  read = []; // the cache has another text from now on
  model.forget();
  for (const token of ids) {
    const trace = [];
    model.read(token, trace);
    traces.push(trace);
    if (traces.length % 8 === 0) {
      answer(id, { read: traces.length, of: ids.length });
      await breathe();
      if (id !== latest) return false;
    }
  }
  kept = { text, ids, traces, left: all.length - ids.length };
  return true;
}

async function heads({ id, text, place }) {
  if (kept.text !== text && !(await readHeads(id, text))) return;
  const { ids, traces, left } = kept, at = Math.min(place, ids.length - 1);
  const blocks = traces[at].map(({ heads, before }, number) => ({
    stream: sizeOf(before),
    heads: heads.map((head, index) => rowOf(number, index, head, traces, at)),
  }));
  const pieces = ids.map((token) => tokenizer.pieces[token].text);
  answer(id, { row: { place: at, pieces, left, blocks } });
}

const sizeOf = (vector) => Math.hypot(...vector);

/* What one head does at one token: its keys from `first` on, and what it adds there. */
function rowOf(number, index, { first, scores, heard }, traces, at) {
  const seen = traces.slice(first, at + 1);
  const added = model.written(number, index, heard);
  const effects = model.favoured(added, traces[at].at(-1).hidden);
  const order = [...effects.keys()].sort((a, b) => effects[b] - effects[a]);
  const name = (id) => [tokenizer.pieces[id].text, effects[id]];
  return {
    first,
    scores: [...scores],
    values: seen.map((trace) => sizeOf(trace[number].heads[index].value)),
    written: sizeOf(added),
    raised: order.slice(0, NAMED).map(name),
    lowered: order.slice(-NAMED).reverse().map(name),
  };
}

// --- Questions ---

const answers = { load: ({ id }) => load(id), steps, heads, stop: () => null };

onmessage = async ({ data: question }) => {
  latest = question.id; // a new question ends the one before it
  try {
    await answers[question.do](question);
    answer(question.id, { done: true });
  } catch (error) {
    answer(question.id, { error: error instanceof Said ? error.message : unexpected(error) });
  }
};

function unexpected(error) {
  if (error instanceof RangeError) return "There is too little memory here for the model.";
  return `The model stopped: ${error.message}`;
}
