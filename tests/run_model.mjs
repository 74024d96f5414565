/* Answers questions about book/_static/model/mistral.js: JSON in, JSON out.

   node run_model.mjs FOLDER < questions.json, where FOLDER is a checkpoint of transformers. */
import { readFileSync } from "node:fs";
import * as lib from "../book/_static/model/mistral.js";

const folder = process.argv[2];
const read = (name) => readFileSync(`${folder}/${name}`);
const model = () => {
  const file = read("model.safetensors");
  const buffer = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
  return new lib.Mistral(JSON.parse(read("config.json")), lib.readTensors(buffer));
};
const tokenizer = () => new lib.Tokenizer(new Uint8Array(read("tokenizer.model")));
const sampler = ({ top_k, top_p, min_p, repetition_penalty, temperature }) => ({
  temperature, topK: top_k, topP: top_p, minP: min_p, repetitionPenalty: repetition_penalty,
});

const answers = {
  encode(texts) {
    const own = tokenizer();
    return texts.map((text) => own.encode(text));
  },
  decode(rows) {
    const own = tokenizer();
    return rows.map((ids) => own.decode(ids));
  },
  merges(text) {
    const own = tokenizer();
    return [...own.merges(own.symbols(text))].map(({ after }) => after.map(({ text }) => text));
  },
  logits({ ids, counts }) {
    const own = model();
    const all = ids.map((id) => own.read(id));
    return counts.map((count) => [...all[count - 1]]);
  },
  trace({ ids }) {
    const own = model();
    return ids.map((id) => {
      const trace = [];
      own.read(id, trace);
      return trace.map(({ heads, hidden }) => ({
        hidden: [...hidden],
        heads: heads.map((head) => ({ first: head.first, weights: [...head.weights] })),
      }));
    });
  },
  write({ ids, length, settings, seed }) {
    const options = { length, seed, sampler: sampler(settings ?? {}) };
    return [...lib.write(model(), tokenizer(), ids, options)].map(({ token }) => token);
  },
  memory({ ids, at }) {
    const own = model(), used = [];
    ids.forEach((id, place) => {
      own.read(id);
      if (at.includes(place + 1)) {
        globalThis.gc();
        used.push(process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers);
      }
    });
    return used;
  },
  filter({ logits, settings, used }) {
    const kept = settings.map((one) => lib.filterLogits(logits, sampler(one), new Set(used)));
    return kept.map((row) => [...row].map((value) => (value === -Infinity ? null : value)));
  },
  draws({ logits, settings, count }) {
    const random = lib.seeded(0);
    const used = new Set();
    return Array.from({ length: count }, () => lib.choose(logits, sampler(settings), random, used));
  },
};

const [name, question] = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(answers[name](question)));
