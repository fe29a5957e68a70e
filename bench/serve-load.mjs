// Load on a running server: one client alone, then many, each asking again as soon as it has its answer.
//   pocketllm serve MODEL --port 8080 &
//   node bench/serve-load.mjs http://127.0.0.1:8080 [--clients 32] [--seconds 60] [--tokens 64] [--kill 100]
// Requests are answered, refused (429, retried after Retry-After) or failed. --kill: so many clients leave in the
// middle of a stream; afterwards the server must be idle. "While all ask": by the server's own count between the first
// quarter of the time and its end; the whole contains the last answers, which have ever fewer beside them. Memory is
// the server's own resident size, from /metrics.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clients: { type: "string", default: "32" },
    seconds: { type: "string", default: "60" },
    tokens: { type: "string", default: "64" },
    kill: { type: "string", default: "100" },
    key: { type: "string" },
  },
});
const [url = "http://127.0.0.1:8080"] = positionals;
const seconds = Number(values.seconds);
const headers = {
  "content-type": "application/json",
  ...(values.key && { authorization: `Bearer ${values.key}` }),
};
const prompts = ["Once upon a time", "The capital of France is", "Two plus two is", "In the morning she"];

function ask(seed, extra = {}, signal) {
  const prompt = prompts[seed % prompts.length];
  const body = JSON.stringify({ prompt, seed, max_tokens: Number(values.tokens), ...extra });
  return fetch(`${url}/v1/completions`, { method: "POST", headers, body, signal });
}

async function metric(name) {
  const text = await (await fetch(`${url}/metrics`, { headers })).text();
  return Number(text.match(new RegExp(`^${name} (.+)$`, "m"))?.[1] ?? Number.NaN);
}

async function load(clients, forSeconds) {
  const counts = { requests: 0, answered: 0, refused: 0, failed: 0, tokens: 0 };
  const memory = [];
  const begun = performance.now();
  const end = begun + 1000 * forSeconds;
  const client = async (number) => {
    for (let i = 0; performance.now() < end; i++) {
      counts.requests++;
      try {
        const response = await ask(number + clients * i);
        if (response.status === 429) {
          counts.refused++;
          await response.arrayBuffer();
          await sleep(1000 * Number(response.headers.get("retry-after")));
          continue;
        }
        const answer = await response.json();
        if (!response.ok) throw new Error(JSON.stringify(answer));
        counts.answered++;
        counts.tokens += answer.usage.completion_tokens;
      } catch (error) {
        counts.failed++;
        console.error(String(error));
      }
    }
  };
  const generated = async () => [await metric("pocketllm_generated_tokens_total"), performance.now() / 1000];
  const counted = Promise.all([
    sleep(250 * forSeconds).then(generated),
    sleep(1000 * forSeconds).then(generated),
  ]);
  const watch = setInterval(async () => memory.push(await metric("process_resident_memory_bytes")), 5000);
  await Promise.all(Array.from({ length: clients }, (_, number) => client(number)));
  clearInterval(watch);
  const took = (performance.now() - begun) / 1000;
  const MB = (bytes) => Math.round(bytes / 1e6);
  const resident = memory.length === 0 ? "" : `, memory ${memory.map(MB).join(" ")} MB`;
  const [[fewer, from], [more, to]] = await counted;
  const rates = { whole: counts.tokens / took, steady: (more - fewer) / (to - from) };
  console.log(
    `${clients} clients, ${took.toFixed(0)} s: ${JSON.stringify(counts)}, ${rates.whole.toFixed(1)} tokens/s, while all ask ${rates.steady.toFixed(1)}${resident}`,
  );
  return rates;
}

await (await ask(0)).json();
const one = await load(1, Math.max(5, seconds / 3));
const many = await load(Number(values.clients), seconds);
const times = (key) => (many[key] / one.whole).toFixed(2);
console.log(
  `${values.clients} clients together: ${times("whole")} times the tokens/s of one, while all ask ${times("steady")}`,
);

for (let i = 0; i < Number(values.kill); i++) {
  const controller = new AbortController();
  const response = await ask(i, { stream: true, max_tokens: 200 }, controller.signal);
  await response.body.getReader().read();
  controller.abort();
}
await sleep(1000);
const [running, waiting] = [
  await metric("pocketllm_sequences_running"),
  await metric("pocketllm_sequences_waiting"),
];
const resident = Math.round((await metric("process_resident_memory_bytes")) / 1e6);
console.log(
  `${values.kill} clients left in the middle: ${running} running, ${waiting} waiting, memory ${resident} MB`,
);
