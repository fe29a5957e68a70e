/** What `pocketllm/serve` exports. */
export type { ServedModel } from "./engine/scheduler.js";
export { createServer, type Server, type ServerOptions } from "./server.js";
