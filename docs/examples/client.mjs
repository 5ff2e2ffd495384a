// What every client of hvd needs: a connection, errors in words, another try, and the stream of events.
// docs/orchestrator.md shows it piece by piece: a mark such as [watch] begins a piece, [end] ends it.
//
// TWINROOT_SOURCES: the folder with proto/ and third_party/googleapis/. 64-bit numbers are strings,
// enum values their names.
import fs from 'node:fs';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

// [load]
const folders = ['proto', 'third_party/googleapis'].map(
    (folder) => path.join(process.env.TWINROOT_SOURCES, folder));
const services = ['host', 'vm', 'memory', 'dirty_log', 'event'];
const definitions = loader.loadSync(
    [...services.map((name) => `twinroot/v1/${name}.proto`), 'google/rpc/status.proto',
     'google/rpc/error_details.proto'],
    {includeDirs: folders, longs: String, enums: String, defaults: true, oneofs: true});
const v1 = grpc.loadPackageDefinition(definitions).twinroot.v1;
// [end]

// [connect]
export function connect(endpoint) {
  const options = {
    // A host that is gone is found out in half a minute; hvd allows a ping every second.
    'grpc.keepalive_time_ms': 20_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.max_reconnect_backoff_ms': 5_000,
  };
  let credentials = grpc.credentials.createInsecure();
  if (!endpoint.startsWith('unix:')) {
    // hvd knows a client by the URI in its certificate: spiffe://example.org/ops/alice.
    if (!process.env.TLS) throw new Error('TLS names no folder with certificates');
    const file = (name) => fs.readFileSync(path.join(process.env.TLS, name));
    credentials =
        grpc.credentials.createSsl(file('ca.pem'), file('client.key'), file('client.pem'));
  }
  const host = new v1.HostService(endpoint, credentials, options);
  const sameChannel = {channelOverride: host.getChannel()};
  const client = (service) => new service('', credentials, sameChannel);
  return {
    host,
    vm: client(v1.VmService),
    memory: client(v1.MemoryService),
    dirtyLog: client(v1.DirtyLogService),
    event: client(v1.EventService),
  };
}
// [end]

// [explain]
// The details that an error carries: {ErrorInfo, BadRequest, QuotaFailure, ...}.
export function detailsOf(error) {
  const details = {};
  for (const bytes of error.metadata?.get('grpc-status-details-bin') ?? []) {
    for (const any of definitions['google.rpc.Status'].deserialize(bytes).details) {
      const name = any.type_url.slice(any.type_url.indexOf('/') + 1);
      details[name.replace('google.rpc.', '')] = definitions[name].deserialize(any.value);
    }
  }
  return details;
}

// What to switch on. Undefined: it was not hvd that answered.
export function reasonOf(error) {
  const info = detailsOf(error).ErrorInfo;
  return info?.domain === 'twinroot' ? info.reason : undefined;
}

export function explain(error) {
  const details = detailsOf(error);
  return [
    `code ${error.code} ${reasonOf(error) ?? ''}`,
    ...(details.BadRequest?.fieldViolations ?? []).map(({field}) => `field ${field}`),
    ...(details.PreconditionFailure?.violations ?? []).map(({subject}) => `about ${subject}`),
    ...(details.QuotaFailure?.violations ?? []).map(({subject}) => `quota of ${subject}`),
    ...(details.RetryInfo ? [`again in ${details.RetryInfo.retryDelay.seconds} s`] : []),
  ].join(', ');
}
// [end]

// [retry]
// Waits before another try, as long as hvd says, else longer each time. False: time heals nothing.
export class Backoff {
  #delay = 100;

  async wait(error) {
    const info = detailsOf(error).RetryInfo;
    if (!info && error.code !== grpc.status.UNAVAILABLE) return false;
    console.error(`trying again: ${explain(error)}: ${error.details}`);
    await sleep(info ? Number(info.retryDelay.seconds) * 1000 : this.#delay);
    this.#delay = Math.min(2 * this.#delay, 5_000);
    return true;
  }

  reset() {
    this.#delay = 100;
  }
}

// A unary call. Repeating one is safe if it changes nothing, or carries a requestId.
export async function call(client, method, request) {
  for (const backoff = new Backoff();;) {
    try {
      return await new Promise((resolve, reject) => {
        client[method](request, {deadline: Date.now() + 30_000},
                       (error, answer) => error ? reject(error) : resolve(answer));
      });
    } catch (error) {
      if (!await backoff.wait(error)) throw error;
    }
  }
}
// [end]

// [snapshot]
// All VMs, and the place in the stream of events from which on this picture is kept up to date.
export async function listVms(hvd) {
  const vms = [];
  let cursor, pageToken;
  do {
    const page = await call(hvd.vm, 'listVms', {pageToken});
    cursor ??= page.cursor;  // the oldest: the first page's
    vms.push(...page.vms);
    pageToken = page.nextPageToken;
  } while (pageToken);
  return {vms, cursor};
}
// [end]

// [watch]
// Hands on every event after `cursor`, once and in order, until `handle` says that it is enough. A
// gap is handed on, too. Where the events after the cursor are kept no more, `startOver` looks at
// all that matters and answers the cursor of that picture.
export async function watch(hvd, cursor, handle, startOver) {
  for (const backoff = new Backoff();;) {
    const stream = hvd.event.watchEvents({startCursor: cursor});
    try {
      for await (const {events} of stream) {
        backoff.reset();
        for (const event of events) {
          if (!await handle(event)) {
            stream.on('error', () => {});  // the cancelling
            stream.cancel();
            return;
          }
          cursor = event.cursor;
        }
      }
      // hvd drained; its last word was a bookmark.
    } catch (error) {
      if (error.code === grpc.status.OUT_OF_RANGE) {
        cursor = await startOver();
      } else if (reasonOf(error) !== 'WATCH_TOO_SLOW' && !await backoff.wait(error)) {
        throw error;
      }
    }
  }
}
// [end]
