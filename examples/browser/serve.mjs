// Serves the page beside this file with a model: node examples/browser/serve.mjs MODEL_FOLDER [PORT]
// Any static server does; the two headers that make the page cross-origin isolated give it threads.
import { createServer } from "node:http";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import sirv from "sirv";

const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** A listening server; `isolated: false` leaves the headers out. */
export async function servePage({ model, port = 0, isolated = true }) {
  const here = fileURLToPath(new URL(".", import.meta.url));
  const options = { dev: true, etag: true };
  const folders = [
    ["/model/", sirv(resolve(model), options)],
    ["/pocketllm/", sirv(resolve(here, "../../dist/browser"), options)],
    ["/", sirv(here, options)],
  ];
  const server = createServer((request, response) => {
    if (isolated) for (const [name, value] of Object.entries(ISOLATION)) response.setHeader(name, value);
    const [prefix, serve] = folders.find(([start]) => request.url.startsWith(start));
    request.url = request.url.slice(prefix.length - 1);
    serve(request, response, () => response.writeHead(404).end());
  });
  await new Promise((listening) => server.listen(port, "127.0.0.1", listening));
  return server;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , model, port = "8000"] = process.argv;
  if (!model) {
    console.error("usage: node examples/browser/serve.mjs MODEL_FOLDER [PORT]");
    process.exit(2);
  }
  const server = await servePage({ model, port: Number(port) });
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
