/* Mistral in plain JavaScript: read a checkpoint, cut text into tokens, run the model, write text.

   This is the model of chapter 12, "The backbone", a second time: the same arithmetic without a library,
   one token at a time. Names and shapes are the book's: D features of a token, H query heads that share
   K key-value heads of h features each, a window of W tokens, V tokens in the vocabulary. A matrix is
   one Float32Array, row after row. Run by a browser or by Node; tested against the Python library
   (tests/test_model_in_javascript.py). */

// --- A checkpoint: JSON that says where each tensor is, then the tensors ---

/* The tensors of a safetensors file (an ArrayBuffer) by name, each a Float32Array. */
export function readTensors(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const tensors = {};
  for (const [name, { dtype, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const data = buffer.slice(...data_offsets.map((offset) => start + offset));
    tensors[name] = dtype === "BF16" ? fromBfloat16(new Uint16Array(data)) : new Float32Array(data);
  }
  return tensors;
}

/* bfloat16 is the upper half of a float32 (chapter 3): 16 zeros make it whole again. */
function fromBfloat16(halves) {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
  return new Float32Array(bits.buffer);
}

// --- Text and tokens (chapter 2) ---

const SPACE = "▁";
const NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, BYTE = 6;

/* SentencePiece's byte pair encoding, from the bytes of its model file. */
export class Tokenizer {
  constructor(bytes) {
    this.pieces = [];
    this.prefix = true; // whether a text begins with a space that is not in it
    for (const [field, value] of protobuf(bytes)) {
      if (field === 1) this.pieces.push(readPiece(value));
      if (field === 3)
        for (const [name, flag] of protobuf(value)) if (name === 3) this.prefix = flag !== 0;
    }
    this.ids = new Map(); // those that text can become, by their text
    this.fixed = []; // those that are cut out before anything is merged
    this.bytes = new Array(256);
    this.pieces.forEach(({ text, type }, id) => {
      if (type === BYTE) this.bytes[parseInt(text.slice(3, 5), 16)] = id;
      else if (type !== UNKNOWN && type !== CONTROL) this.ids.set(text, id);
      if (type === USER_DEFINED) this.fixed.push(text);
    });
    this.fixed.sort((a, b) => b.length - a.length);
    this.start = this.pieces.findIndex(({ text }) => text === "<s>");
    this.end = this.pieces.findIndex(({ text }) => text === "</s>");
  }

  /* The token ids of a text, without the start token. */
  encode(text) {
    let symbols = this.symbols(text);
    for (const { after } of this.merges(symbols)) symbols = after;
    return symbols.flatMap(({ text }) => {
      if (this.ids.has(text)) return [this.ids.get(text)];
      return [...new TextEncoder().encode(text)].map((byte) => this.bytes[byte]);
    });
  }

  /* What merging begins with: a symbol for each character, or for each piece that is fixed. */
  symbols(text) {
    let rest = (this.prefix && text ? " " : "") + text.toWellFormed();
    rest = rest.replaceAll(" ", SPACE);
    const symbols = [];
    while (rest) {
      const whole = this.fixed.find((piece) => rest.startsWith(piece));
      const next = whole ?? String.fromCodePoint(rest.codePointAt(0));
      symbols.push({ text: next, fixed: whole !== undefined });
      rest = rest.slice(next.length);
    }
    return symbols;
  }

  /* Merge by merge: always the neighbours whose piece was learned first, the leftmost of them. */
  *merges(symbols) {
    while (true) {
      let best = null;
      for (let place = 0; place + 1 < symbols.length; place++) {
        const [left, right] = [symbols[place], symbols[place + 1]];
        if (left.fixed || right.fixed) continue;
        const id = this.ids.get(left.text + right.text);
        if (id === undefined || this.pieces[id].score <= (best?.score ?? -Infinity)) continue;
        best = { place, id, score: this.pieces[id].score };
      }
      if (best === null) return;
      const merged = { text: this.pieces[best.id].text, fixed: false };
      symbols = symbols.toSpliced(best.place, 2, merged);
      yield { ...best, after: symbols };
    }
  }

  /* The text of token ids. Control tokens write nothing; bytes that are no UTF-8 become U+FFFD. */
  decode(ids) {
    let decoded = "", bytes = [];
    for (const { text, type } of [...ids.map((id) => this.pieces[id]), { text: "", type: NORMAL }]) {
      if (type === BYTE) {
        bytes.push(parseInt(text.slice(3, 5), 16));
        continue;
      }
      decoded += fromUtf8(bytes); // characters that were cut into bytes
      bytes = [];
      if (type !== CONTROL && type !== UNKNOWN) decoded += text.replaceAll(SPACE, " ");
    }
    return this.prefix && decoded.startsWith(" ") ? decoded.slice(1) : decoded;
  }
}

function readPiece(bytes) {
  const piece = { text: "", score: 0, type: NORMAL };
  for (const [field, value] of protobuf(bytes)) {
    if (field === 1) piece.text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(value);
    if (field === 2) piece.score = new DataView(value.buffer, value.byteOffset).getFloat32(0, true);
    if (field === 3) piece.type = value;
  }
  return piece;
}

/* The fields of a protocol buffer: their numbers, with a whole number or the bytes of each. */
function* protobuf(bytes) {
  let at = 0;
  const whole = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    const key = whole();
    if (key % 8 === 0) {
      yield [key >> 3, whole()];
    } else {
      const length = { 1: 8, 2: null, 5: 4 }[key % 8] ?? whole();
      yield [key >> 3, bytes.subarray(at, at + length)];
      at += length;
    }
  }
}

function fromUtf8(bytes) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "", at = 0;
  while (at < bytes.length) {
    const length = bytes[at] < 0x80 ? 1 : bytes[at] < 0xe0 ? 2 : bytes[at] < 0xf0 ? 3 : 4;
    try {
      text += decoder.decode(new Uint8Array(bytes.slice(at, at + length)));
      at += length;
    } catch {
      text += "\ufffd";
      at += 1;
    }
  }
  return text;
}

// --- The model ---

/* y = W x, for a matrix W of `y.length` rows. */
function multiply(W, x, rows) {
  const y = new Float32Array(rows), D = x.length;
  for (let i = 0, at = 0; i < rows; i++, at += D) {
    let sum = 0;
    for (let j = 0; j < D; j++) sum += W[at + j] * x[j];
    y[i] = sum;
  }
  return y;
}

/* x (D), scaled to a mean square of 1, times the gains (chapter 9). The mean square may be another
   vector's: that of the sum of which x is a part. */
function rmsNorm(x, scale, epsilon, measured = x) {
  let sum = 0;
  for (const value of measured) sum += value * value;
  const factor = 1 / Math.sqrt(sum / x.length + epsilon);
  return x.map((value, i) => value * factor * scale[i]);
}

/* Turns the features i and i + h / 2 of each head, in place (chapter 5). */
function rotate(x, h, position, base) {
  for (let head = 0; head < x.length; head += h) {
    for (let i = 0; i < h / 2; i++) {
      const angle = position * base ** (-i / (h / 2));
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      const [one, other] = [x[head + i], x[head + i + h / 2]];
      x[head + i] = one * cos - other * sin;
      x[head + i + h / 2] = other * cos + one * sin;
    }
  }
}

/* Probabilities from scores (chapter 4). */
export function softmax(scores) {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(scores, (score) => Math.exp(score - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

const add = (x, y) => x.map((value, i) => value + y[i]);
const silu = (value) => value / (1 + Math.exp(-value));

/* The model and its cache. `config` is the config.json of transformers. */
export class Mistral {
  constructor(config, tensors) {
    this.config = config;
    this.window = config.sliding_window ?? config.max_position_embeddings;
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, number) => {
      const layer = {};
      for (const [name, tensor] of Object.entries(tensors)) {
        const place = name.split(".");
        if (place[1] === "layers" && Number(place[2]) === number) layer[place.at(-2)] = tensor;
      }
      return layer;
    });
    this.embedding = tensors["model.embed_tokens.weight"];
    this.norm = tensors["model.norm.weight"];
    this.head = tensors["lm_head.weight"] ?? this.embedding; // tied
    this.forget();
  }

  /* Empties the cache: the next token is the first of a text. */
  forget() {
    const { num_key_value_heads: K, hidden_size: D, num_attention_heads: H } = this.config;
    const size = this.window * K * (this.config.head_dim ?? D / H);
    this.position = 0;
    this.caches = this.layers.map(() => [new Float32Array(size), new Float32Array(size)]);
  }

  /* Reads one token and gives the logits (V) of the next one. What happens on the way goes into
     `trace`, if there is one: the hidden state (D) before and after every layer, and its heads. */
  read(token, trace = null) {
    const { hidden_size: D, rms_norm_eps: epsilon, vocab_size: V } = this.config;
    let x = this.embedding.slice(token * D, (token + 1) * D);
    this.layers.forEach((layer, number) => {
      const heads = trace ? [] : null, before = x;
      const heard = this.attend(number, rmsNorm(x, layer.input_layernorm, epsilon), heads);
      const middle = add(x, heard);
      x = rmsNorm(middle, layer.post_attention_layernorm, epsilon);
      x = add(middle, feedForward(layer, x));
      trace?.push({ before, heads, hidden: x });
    });
    this.position += 1;
    return multiply(this.head, rmsNorm(x, this.norm, epsilon), V);
  }

  /* What the heads of a layer hear and write, x (D) to (D) (chapters 4 to 7 and 15). */
  attend(number, x, heads) {
    const { num_attention_heads: H, num_key_value_heads: K, rope_theta: base } = this.config;
    const layer = this.layers[number], [keys, values] = this.caches[number];
    const h = this.config.head_dim ?? x.length / H;
    const query = multiply(layer.q_proj, x, H * h);
    const key = multiply(layer.k_proj, x, K * h);
    rotate(query, h, this.position, base);
    rotate(key, h, this.position, base);

    // The newest token takes the slot of the one that has just left the window.
    const slot = this.position % this.window;
    keys.set(key, slot * K * h);
    values.set(multiply(layer.v_proj, x, K * h), slot * K * h);
    const first = Math.max(0, this.position - this.window + 1);
    const seen = this.position - first + 1;

    const heard = new Float32Array(H * h);
    for (let head = 0; head < H; head++) {
      const shared = Math.floor(head / (H / K)); // the key-value head of this query head
      const at = (place) => (((first + place) % this.window) * K + shared) * h;
      const scores = Float64Array.from({ length: seen }, (_, place) => {
        let sum = 0;
        for (let i = 0, from = at(place); i < h; i++) sum += query[head * h + i] * keys[from + i];
        return sum / Math.sqrt(h);
      });
      const weights = softmax(scores);
      for (let place = 0; place < seen; place++)
        for (let i = 0, from = at(place); i < h; i++)
          heard[head * h + i] += weights[place] * values[from + i];
      const [own, newest] = [head * h, (slot * K + shared) * h];
      heads?.push({
        query: query.slice(own, own + h),
        key: keys.slice(newest, newest + h),
        value: values.slice(newest, newest + h),
        ...{ first, scores, weights, heard: heard.slice(own, own + h) },
      });
    }
    return multiply(layer.o_proj, heard, x.length);
  }

  /* What one head adds to the stream (D): what it heard (h), through its own columns of the output
     projection. The sum over all heads of a layer is what the layer hears (chapters 4 and 6). */
  written(number, head, heard) {
    const projection = this.layers[number].o_proj, h = heard.length;
    const width = this.config.num_attention_heads * h;
    return Float32Array.from({ length: projection.length / width }, (_, row) => {
      const from = row * width + head * h;
      return heard.reduce((sum, value, i) => sum + projection[from + i] * value, 0);
    });
  }

  /* What a vector (D) adds to the logits (V) directly, as a part of the last block's output (D). */
  favoured(vector, output) {
    const { rms_norm_eps: epsilon, vocab_size: V } = this.config;
    return multiply(this.head, rmsNorm(vector, this.norm, epsilon, output), V);
  }
}

/* SwiGLU: x (D) to (D) (chapter 10). */
function feedForward(layer, x) {
  const F = layer.gate_proj.length / x.length;
  const gate = multiply(layer.gate_proj, x, F).map(silu);
  const up = multiply(layer.up_proj, x, F);
  return multiply(layer.down_proj, up.map((value, i) => value * gate[i]), x.length);
}

// --- The next token (chapter 16) ---

/* Logits after the steps of a sampler, in the library's order; what is left out is -Infinity. */
export function filterLogits(logits, sampler, used = new Set()) {
  const { temperature, topK, topP, minP, repetitionPenalty } = sampler;
  let kept = Float64Array.from(logits);
  if (repetitionPenalty)
    for (const id of used) kept[id] *= kept[id] < 0 ? repetitionPenalty : 1 / repetitionPenalty;
  if (temperature) kept = kept.map((logit) => logit / temperature);
  const keep = (threshold) => kept.map((logit) => (logit >= threshold ? logit : -Infinity));
  if (topK) kept = keep(kept.toSorted().at(-Math.min(topK, kept.length)));
  if (topP && topP < 1) {
    const ranked = kept.toSorted().reverse();
    let before = 0, last = 0;
    softmax(ranked).forEach((probability, rank) => {
      if (before < topP) last = rank; // what comes before it does not reach p yet
      before += probability;
    });
    kept = keep(ranked[last]);
  }
  if (minP) kept = keep(kept.reduce((a, b) => Math.max(a, b)) + Math.log(minP));
  return kept;
}

/* A token: the likeliest without a temperature, otherwise drawn. `random` gives numbers from 0 to 1. */
export function choose(logits, sampler, random, used) {
  const kept = filterLogits(logits, sampler, used);
  if (!sampler.temperature) return kept.indexOf(kept.reduce((a, b) => Math.max(a, b)));
  const probabilities = softmax(kept);
  let rest = random();
  const token = probabilities.findIndex((probability) => (rest -= probability) < 0);
  return token >= 0 ? token : probabilities.findLastIndex((probability) => probability > 0);
}

/* Random numbers from 0 to 1 that depend on the seed alone: Tommy Ettinger's Mulberry32. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/* Yields what follows `ids`, token by token and with its logits, until the text ends. */
export function* write(model, tokenizer, ids, { sampler = {}, seed = 0, length = 512 } = {}) {
  const random = seeded(seed), used = new Set(ids);
  let logits;
  model.forget();
  for (const id of ids) logits = model.read(id);
  for (let count = ids.length; count < length; count++) {
    const token = choose(logits, sampler, random, used);
    yield { token, logits };
    if (token === tokenizer.end) return;
    used.add(token);
    logits = model.read(token);
  }
}
