/** Errors as OpenAI's API gives them: an HTTP status and `{error: {message, type, param, code}}`. */
import type { FastifyError } from "fastify";
import { InputError } from "../errors.js";
import { Refused } from "./engine/scheduler.js";

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

export interface ApiErrorOptions {
  /** The parameter at fault. */
  readonly param?: string | null;
  readonly code?: string | null;
  /** Seconds, for the header Retry-After. */
  readonly retryAfter?: number;
}

export class ApiError extends Error {
  readonly param: string | null;
  readonly code: string | null;
  readonly retryAfter: number | undefined;

  constructor(
    readonly status: number,
    message: string,
    { param = null, code = null, retryAfter }: ApiErrorOptions = {},
  ) {
    super(message);
    this.param = param;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  get body(): ErrorBody {
    const { message, param, code } = this;
    return { error: { message, type: typeOf(this.status), param, code } };
  }
}

/** Why an answer ended early: the reasons of a request's AbortSignal. */
export const CLIENT_GONE = new ApiError(499, "the client closed the connection");
export const TIMED_OUT = new ApiError(504, "the request took too long and was given up", { code: "timeout" });
export const STOPPED = new ApiError(503, "the server is shutting down", { code: "shutting_down" });

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/** A value of `response_format`, a field or a role that the API knows and this server does not do. */
export function unsupported(param: string, message: string): ApiError {
  return new ApiError(400, message, { param, code: "unsupported_value" });
}

/** Any error as one of the API's. `onDefect` is told of those that are our own. */
export function toApiError(error: unknown, onDefect: (error: unknown) => void = () => {}): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof Refused)
    return error.reason === "full"
      ? new ApiError(429, error.message, { code: "queue_full", retryAfter: error.retryAfter })
      : new ApiError(503, error.message, { code: "shutting_down", retryAfter: error.retryAfter });
  if (error instanceof InputError) return new ApiError(400, error.message);
  if (isFastifyError(error)) {
    if (error.validation) return validationError(error.validation, error.validationContext);
    const { statusCode = 500, message } = error;
    if (statusCode < 500) return new ApiError(statusCode, message);
  }
  onDefect(error);
  return new ApiError(500, "the server made a mistake: its log has the details");
}

function isFastifyError(error: unknown): error is FastifyError {
  return error instanceof Error && "code" in error;
}

type ValidationErrors = NonNullable<FastifyError["validation"]>;

/** The last of Ajv's errors is the outermost: of a union that none of its kinds fits, the union's. */
function validationError(errors: ValidationErrors, context: string | undefined): ApiError {
  const error = errors[errors.length - 1];
  const path = error.instancePath.slice(1).replaceAll("/", ".");
  const { keyword, params } = error;
  const within = (name: string) => (path === "" ? name : `${path}.${name}`);
  if (keyword === "additionalProperties") {
    const param = within(String(params["additionalProperty"]));
    return new ApiError(400, `Unknown parameter: '${param}'.`, { param, code: "unknown_parameter" });
  }
  if (keyword === "required") {
    const param = within(String(params["missingProperty"]));
    return new ApiError(400, `Missing required parameter: '${param}'.`, {
      param,
      code: "missing_required_parameter",
    });
  }
  const what = path === "" ? `the request's ${context ?? "body"}` : `'${path}'`;
  const { description } = (error as { parentSchema?: { description?: string } }).parentSchema ?? {};
  let wanted = error.message;
  if (keyword === "anyOf" && description) wanted = `must be ${description}`;
  else if (keyword === "const")
    wanted = `must be ${JSON.stringify(params["allowedValue"])}, all that is supported`;
  else if (keyword === "enum")
    wanted = `must be one of ${JSON.stringify(params["allowedValues"])}, all that is supported`;
  return new ApiError(400, `Invalid value for ${what}: ${wanted}.`, {
    param: path || null,
    code: "invalid_value",
  });
}
