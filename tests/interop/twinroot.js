// Twinroot for Node.js: loads the proto files themselves, calls, and decodes errors. 64-bit numbers
// are strings, enum values their names.
'use strict';

const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const folders = ['proto', 'third_party/googleapis'].map(
    (folder) => path.join(process.env.TWINROOT_SOURCES, folder));
const files = fs.readdirSync(path.join(folders[0], 'twinroot/v1'))
                  .filter((name) => name.endsWith('.proto'))
                  .map((name) => `twinroot/v1/${name}`);
const definitions =
    loader.loadSync([...files, 'google/rpc/status.proto', 'google/rpc/error_details.proto'], {
      includeDirs: folders,
      longs: String,
      enums: String,
      defaults: true,
      oneofs: true,
    });
const v1 = grpc.loadPackageDefinition(definitions).twinroot.v1;

// A client for each service, all on one connection: {vm, memory, event, host}.
function connect(socket, options = {}) {
  const first = new v1.VmService(`unix:${socket}`, grpc.credentials.createInsecure(), options);
  const share = {channelOverride: first.getChannel()};
  const client = (service) => new service('', grpc.credentials.createInsecure(), share);
  return {
    vm: first,
    memory: client(v1.MemoryService),
    event: client(v1.EventService),
    host: client(v1.HostService),
    close: () => first.close(),
  };
}

// What a failed call said: {code, message, details: {ErrorInfo, BadRequest, ...}}.
function explain(error) {
  const details = {};
  for (const bytes of error.metadata?.get('grpc-status-details-bin') ?? []) {
    for (const any of definitions['google.rpc.Status'].deserialize(bytes).details) {
      const type = any.type_url ?? any.typeUrl;
      const name = type.slice(type.indexOf('/') + 1);
      details[name.replace('google.rpc.', '')] = definitions[name].deserialize(any.value);
    }
  }
  return {code: grpc.status[error.code], message: error.details, details};
}

// A unary call as a promise; it rejects with grpc-js's error.
function call(client, method, request, options = {}) {
  return new Promise((resolve, reject) => {
    client[method](request, new grpc.Metadata(), options,
                   (error, answer) => error ? reject(error) : resolve(answer));
  });
}

// The reason of a failed call, for those who go on after some of them.
function reasonOf(error) {
  return explain(error).details.ErrorInfo?.reason;
}

module.exports = {connect, call, explain, reasonOf};
