/** What the endpoints have in common: the model, its engine, and how long a request may take. */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import type { FastifyBaseLogger, FastifyInstance, FastifyReply, RawServerDefault } from "fastify";
import type { Scheduler, ServedModel } from "./engine/scheduler.js";
import { CLIENT_GONE, STOPPED, TIMED_OUT } from "./errors.js";

/** Bytes of the weight files, and of the same weights in 16 bits. */
export interface ModelBytes {
  readonly weightBytes: number;
  readonly bytes16: number;
}

export interface ServeContext {
  readonly model: ServedModel;
  /** The model's id in requests and answers. */
  readonly name: string;
  /** What its weights take, where that is known. */
  readonly size: ModelBytes | undefined;
  /** Unix time in seconds at which the server started. */
  readonly created: number;
  readonly scheduler: Scheduler;
  readonly requests: RunningRequests;
  /** Told of errors that are our own. */
  readonly onDefect: (error: unknown) => void;
}

/** A server whose schemas type its handlers. */
export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** Requests that are being answered, each with a signal that says when to give up on it. */
export class RunningRequests {
  readonly #running = new Set<AbortController>();
  readonly #timeout: number;

  /** `timeout` in seconds, from a request's arrival to the end of its answer. */
  constructor(timeout: number) {
    this.#timeout = timeout;
  }

  /** Aborted with an ApiError when the client goes away, the time is up, or `abortAll` is called. */
  signalFor(reply: FastifyReply): AbortSignal {
    // Its "close" has been and will not come again.
    if (reply.raw.destroyed) return AbortSignal.abort(CLIENT_GONE);
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(TIMED_OUT), 1000 * this.#timeout);
    this.#running.add(controller);
    reply.raw.once("close", () => {
      clearTimeout(timer);
      this.#running.delete(controller);
      if (!reply.raw.writableFinished) controller.abort(CLIENT_GONE);
    });
    return controller.signal;
  }

  abortAll(): void {
    for (const controller of this.#running) controller.abort(STOPPED);
  }
}
