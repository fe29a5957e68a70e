/** The models there are, whether the server lives, its metrics. */
import Type from "typebox";
import type { App, ServeContext } from "../context.js";
import { checkModel } from "../generation.js";
import type { ServerMetrics } from "../metrics.js";
import { errorResponses } from "../schemas/common.js";

const Model = Type.Object({
  id: Type.String(),
  object: Type.Literal("model"),
  created: Type.Integer({ description: "Unix time in seconds at which the server started." }),
  owned_by: Type.String(),
  max_model_len: Type.Integer({ description: "Longest sequence in tokens, prompt and answer." }),
  chat: Type.Boolean({ description: "Whether the model has a chat template; others only complete text." }),
  weight_bytes: Type.Optional(Type.Integer({ description: "Bytes of the weight files." })),
  bytes_16bit: Type.Optional(Type.Integer({ description: "Bytes of the same weights in 16 bits." })),
});

export function addStatus(app: App, context: ServeContext, metrics: ServerMetrics): void {
  const { name, created, model, size, scheduler } = context;
  const served = {
    id: name,
    object: "model" as const,
    created,
    owned_by: "pocketllm",
    max_model_len: model.contextLength,
    chat: model.tokenizer.chatTemplate !== null,
    ...(size && { weight_bytes: size.weightBytes, bytes_16bit: size.bytes16 }),
  };
  app.get(
    "/v1/models",
    {
      schema: {
        operationId: "listModels",
        response: {
          200: Type.Object({ object: Type.Literal("list"), data: Type.Array(Model) }),
          ...errorResponses(401),
        },
      },
    },
    async () => ({ object: "list" as const, data: [served] }),
  );
  app.get(
    "/v1/models/:model",
    {
      schema: {
        operationId: "retrieveModel",
        params: Type.Object({ model: Type.String() }),
        response: { 200: Model, ...errorResponses(401, 404) },
      },
    },
    async ({ params }) => {
      checkModel(params.model, name);
      return served;
    },
  );
  app.get(
    "/health",
    {
      schema: {
        operationId: "health",
        security: [],
        response: {
          200: Type.Object({
            status: Type.Literal("ok"),
            running: Type.Integer({ description: "Sequences in the batch." }),
            waiting: Type.Integer({ description: "Sequences in the queue." }),
          }),
        },
      },
    },
    async () => ({ status: "ok" as const, running: scheduler.running, waiting: scheduler.waiting }),
  );
  app.get(
    "/metrics",
    {
      schema: {
        operationId: "metrics",
        summary: "Metrics in Prometheus' text format",
        response: {
          200: {
            description: "Metrics",
            content: { "text/plain": { schema: Type.String() } },
          },
          ...errorResponses(401),
        },
      },
    },
    async (_, reply) => {
      reply.header("content-type", metrics.registry.contentType);
      return await metrics.registry.metrics();
    },
  );
}
