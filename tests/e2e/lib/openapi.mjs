// The OpenAPI document that a server serves: its operations, and whether what the server answers is what it says.

import assert from 'node:assert/strict';

import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const METHODS = ['get', 'post', 'patch', 'put', 'delete'];
/** Answers that the document sums up as `default`: they are of HTTP, not of the operation. */
const DEFAULTS = [400, 413, 414, 415, 503];
const RETRY_LATER = [429, 503];

const ajv = new Ajv2020({ strictTypes: false, strictRequired: false, allErrors: true, verbose: false });
addFormats.default(ajv);
ajv.addKeyword('example');

export class OpenApi {
  constructor(document) {
    this.document = document;
    this.validators = new Map();
    this.operations = Object.entries(document.paths).flatMap(([path, item]) =>
      METHODS.filter((method) => item[method]).map((method) => this.#operation(path, method.toUpperCase(), item)),
    );
  }

  /** The document of a running server; each is read once. */
  static of(server, api) {
    return (server.openapi ??= api.request('GET', '/v1/openapi.json', { key: null }).then(({ json }) => new OpenApi(json)));
  }

  #operation(path, method, item) {
    const operation = item[method.toLowerCase()];
    const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map((one) => this.resolve(one));
    return {
      ...operation,
      name: operation.operationId,
      method,
      path,
      parameters,
      scope: operation.security[0]?.key[0] ?? null,
      scopes: operation.security.map(({ key }) => key[0]), // each of which will do
      isTenants: path.startsWith('/v1/tenants/{t}'),
      pattern: new RegExp(`^${path.replace(/[.]/g, '\\.').replace(/\{\w+\}/g, '[^/]+')}$`),
    };
  }

  /** What a $ref stands for, with what stands beside it. */
  resolve(object) {
    const { $ref, ...beside } = object;
    if ($ref === undefined) return object;
    const found = $ref.replace(/^#\//, '').split('/').reduce((at, name) => at?.[name], this.document);
    assert.ok(found, `${$ref} leads nowhere`);
    return { ...this.resolve(found), ...beside };
  }

  find(method, path) {
    const wanted = method === 'HEAD' ? 'GET' : method;
    return this.operations.find((one) => one.method === wanted && one.pattern.test(path));
  }

  /** Throws when an answer, or the request that was taken, is not as the document has it. */
  check(method, target, body, response) {
    const [path, query = ''] = target.split('?');
    const operation = this.find(method, path);
    const what = `${method} ${target} ${response.status}`;
    if (!operation) {
      // No such path, or not this method: the document cannot tell of those.
      assert.ok([404, 405].includes(response.status), `${what}: not in the document`);
      return;
    }
    this.#checkAnswer(operation, method, response, what);
    if (response.status < 300) this.#checkRequest(operation, query, body, what);
  }

  #checkAnswer(operation, method, response, what) {
    const said = operation.responses[response.status] ?? (DEFAULTS.includes(response.status) ? operation.responses.default : undefined);
    assert.ok(said, `${what}: ${operation.name} does not tell of this status`);
    const { content = {}, headers = {} } = this.resolve(said);
    for (const [name, header] of Object.entries(headers)) {
      if (this.resolve(header).required) assert.ok(response.headers[name.toLowerCase()], `${what}: ${name} is missing`);
    }
    if (RETRY_LATER.includes(response.status)) assert.match(response.headers['retry-after'] ?? '', /^\d+$/, what);
    if (method === 'HEAD') return;
    const type = response.headers['content-type']?.split(';')[0];
    if (Object.keys(content).length === 0) {
      assert.equal(response.text, '', `${what}: no body is told of`);
      return;
    }
    assert.ok(content[type], `${what}: ${type} is not told of`);
    this.validate(content[type].schema, response.json ?? response.text, what);
  }

  /** What was accepted is what the document says may be sent. */
  #checkRequest(operation, query, body, what) {
    const known = operation.parameters.filter((one) => one.in === 'query').map((one) => one.name);
    for (const name of new URLSearchParams(query).keys()) assert.ok(known.includes(name), `${what}: ${name} is not told of`);
    if (body === undefined || !operation.requestBody) return;
    const schema = operation.requestBody.content['application/json']?.schema;
    let sent = body;
    if (typeof body === 'string' || Buffer.isBuffer(body)) {
      try {
        sent = JSON.parse(body);
      } catch {
        return; // NDJSON
      }
    }
    if (schema) this.validate(schema, sent, `${what}: the request`);
  }

  /** Throws unless `value` fits; a member that the schema does not name is one too many. */
  validate(schema, value, what) {
    const key = JSON.stringify(schema);
    let validator = this.validators.get(key);
    if (!validator) this.validators.set(key, (validator = ajv.compile(this.#closed(schema))));
    if (validator(value)) return;
    const errors = validator.errors.map((one) => `${one.instancePath || '/'} ${one.message} ${JSON.stringify(one.params)}`);
    assert.fail(`${what} is not as openapi.json says:\n  ${errors.slice(0, 20).join('\n  ')}\n  ${JSON.stringify(value)?.slice(0, 2000)}`);
  }

  /**
   * The schema with every $ref put in, and with its objects closed: the published document leaves room for members to
   * come, the tests don't. Of an allOf the whole is closed, not its parts.
   */
  #closed(schema, isPart = false) {
    if (typeof schema !== 'object') return schema;
    const { allOf, oneOf, items, properties, additionalProperties, ...rest } = this.resolve(schema);
    const closed = { ...rest };
    if (allOf) closed.allOf = allOf.map((one) => this.#closed(one, true));
    if (oneOf) closed.oneOf = oneOf.map((one) => this.#closed(one));
    if (items) closed.items = this.#closed(items);
    if (properties) closed.properties = Object.fromEntries(Object.entries(properties).map(([name, one]) => [name, this.#closed(one)]));
    if (additionalProperties !== undefined) closed.additionalProperties = this.#closed(additionalProperties);
    else if ((properties || allOf) && !isPart) closed.unevaluatedProperties = false;
    return closed;
  }
}

/** The operation's path with these ids in it: {t} and {id}. */
export const pathOf = (operation, ids) => operation.path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(ids[name]));

/** Which kind of id stands in {id}, such as "SubscriptionId"; undefined when the path has none. */
export function kindOfId(operation) {
  const parameter = operation.parameters.find((one) => one.in === 'path' && one.name === 'id');
  return parameter?.schema.$ref.split('/').at(-1);
}
