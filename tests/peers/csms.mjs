// A CSMS for the tests, built on the npm package `ocpp-rpc` in its strict mode: every message of both sides is
// validated by its JSON schemas.
//
// It takes the options and the commands of csms.py, and answers them alike, as far as they are here. What breaks
// the standard on the charge point's side goes to the file that --violations names:
// - a payload that its schema doesn't allow, in a request or in an answer;
// - a text that is no frame, an answer to what was never asked;
// - an id that was used before in the connection, or has more than 36 characters;
// - a CALLERROR whose code isn't one of the standard's, or whose rest isn't a string and an object.

import { EventEmitter, once } from 'node:events';
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { Asked, camelCase, parsed, snakeCase, transcript } from './common.mjs';

// By NODE_PATH, which an import doesn't look at.
const require = createRequire(import.meta.url);
const { RPCServer, RPCError, TimeoutError } = require('ocpp-rpc');
const validators = require('ocpp-rpc/lib/standard-validators.js');

const ANSWER_SECONDS = 20;
const ID_CHARACTERS = 36;
// OCPP-J 1.6 section 4.2.3, with both spellings of the one that is misspelt there (errata 5.2).
const ERROR_CODES = [
    'FormationViolation', 'GenericError', 'InternalError', 'NotImplemented', 'NotSupported',
    'OccurenceConstraintViolation', 'OccurrenceConstraintViolation', 'PropertyConstraintViolation', 'ProtocolError',
    'SecurityError', 'TypeConstraintViolation',
];
// What a charge point may send, and what it is answered, besides boot, heartbeat and the beginning of a transaction.
const ANSWERS = {
    Authorize: { idTagInfo: { status: 'Accepted' } },
    DataTransfer: { status: 'Accepted' },
    DiagnosticsStatusNotification: {},
    FirmwareStatusNotification: {},
    LogStatusNotification: {},
    MeterValues: {},
    SecurityEventNotification: {},
    SignCertificate: { status: 'Accepted' },
    StatusNotification: {},
    StopTransaction: {},
};

const { values: options } = parseArgs({
    options: {
        port: { type: 'string', default: '0' },
        identity: { type: 'string' },
        password: { type: 'string', default: '' },
        'no-password': { type: 'boolean', default: false },
        boot: { type: 'string', default: 'Accepted' },
        interval: { type: 'string', default: '300' },
        certificate: { type: 'string' },
        key: { type: 'string' },
        // With it, whoever connects must show a certificate that this authority vouches for (security profile 3).
        'client-ca': { type: 'string' },
        violations: { type: 'string' },
        protocols: { type: 'string', default: 'ocpp1.6' },
    },
});

const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const violation = (what) => options.violations && appendFileSync(options.violations, `${what}\n`);
const shown = (value) => JSON.stringify(value)?.slice(0, 500);

const validator = validators.find(({ subprotocol }) => subprotocol === 'ocpp1.6');
const counts = { connections: 0, boots: 0, refused: 0, heartbeats: 0 };
const counted = new EventEmitter();
const frames = [];
const sent = [];
const endings = [];
const asked = new Asked();
let transactions = 0;
let password = Buffer.from(options.password, 'hex');
let boot = { status: options.boot, interval: Number(options.interval) };
let session = null;

const count = (name) => {
    counts[name] = (counts[name] ?? 0) + 1;
    counted.emit('change');
};

// === the charge point's side ===

const server = new RPCServer({
    protocols: options.protocols.split(','),
    strictMode: true,
    callTimeoutMs: ANSWER_SECONDS * 1000,
    pingIntervalMs: 0,
});

server.auth((accept, reject, { identity, password: shownPassword }) => {
    if (identity !== options.identity) {
        count('refused');
        reject(404, 'unknown charge point');
    } else if (!options['no-password'] && !shownPassword?.equals(password)) {
        count('refused');
        reject(401, 'wrong credentials');
    } else {
        accept();
    }
});

server.on('client', (client) => {
    // The ids that the charge point has used, and the requests that went around the library, by id.
    const used = new Set();
    const raw = new Map();
    session = { client, raw };
    count('connections');
    client.once('close', ({ code, reason }) => {
        endings.push({ code, reason });
        if (session?.client === client) session = null;
        counted.emit('change');
    });

    client.on('message', ({ message, outbound }) => {
        (outbound ? sent : frames).push(message);
        if (!outbound) asked.heard(message);
    });
    client.on('call', ({ outbound, payload: [, id, action] }) => {
        if (outbound) return;
        if (used.has(id)) violation(`${action} has the id of an earlier request: ${id}`);
        if (id.length > ID_CHARACTERS) violation(`${action} has an id of ${id.length} characters: ${id}`);
        used.add(id);
        count(action);
    });
    client.on('response', ({ outbound, payload }) => {
        if (outbound) return;
        const [kind, id, code, description, details] = payload;
        if (kind === 4) {
            const isSound = ERROR_CODES.includes(code) && typeof description === 'string'
                && typeof details === 'object' && details !== null && payload.length === 5;
            if (!isSound) violation(`a CALLERROR that is none: ${shown(payload)}`);
        } else if (raw.has(id)) {
            try {
                validator.validate(`urn:${raw.get(id)}.conf`, code);
            } catch (error) {
                violation(`the answer ${shown(payload)} to ${raw.get(id)}: ${error.message}`);
            }
        }
    });
    client.on('badMessage', ({ buffer, error }) => {
        // The library knows nothing of what was sent around it.
        if (!raw.has(error.details?.msgId)) violation(`${error.message}: ${buffer.toString().slice(0, 500)}`);
    });
    client.on('strictValidationFailure', ({ outbound, isCall, method, params, result, error }) => {
        // Tests may send what the schemas forbid; they only can't do it here.
        if (outbound && isCall) return;
        violation(`${method} ${isCall ? shown(params) : `answered ${shown(result)}`}: ${error.message}`);
    });

    client.handle('BootNotification', () => {
        count('boots');
        return { currentTime: new Date().toISOString(), ...boot };
    });
    client.handle('Heartbeat', () => {
        count('heartbeats');
        return { currentTime: new Date().toISOString() };
    });
    client.handle('StartTransaction', () => {
        transactions += 1;
        return { transactionId: transactions, idTagInfo: { status: 'Accepted' } };
    });
    for (const [action, answer] of Object.entries(ANSWERS)) client.handle(action, () => answer);
});

// === the test's side ===

async function call(action, payload) {
    try {
        return { answer: snakeCase(await session.client.call(action, payload)) };
    } catch (error) {
        if (error instanceof TimeoutError) return { failed: 'no answer in time' };
        if (error instanceof RPCError) return { error: { code: error.rpcErrorCode, description: error.message } };
        throw error;
    }
}

async function waitFor({ for: name, count: least, seconds }) {
    const signal = AbortSignal.timeout(seconds * 1000);
    while ((counts[name] ?? 0) < least) {
        try {
            await once(counted, 'change', { signal });
        } catch {
            return { failed: 'no answer in time' };
        }
    }
    return { answer: counts };
}

function sendAround(text) {
    const frame = parsed(text);
    // No frame at all: whatever it is answered, it is no answer to a request.
    if (Array.isArray(frame)) session.raw.set(frame[1], frame[2]);
    session.client.sendRaw(text);
}

async function sendRaw({ text, wait }) {
    const before = frames.length;
    sendAround(text);
    await sleep(wait * 1000);
    return { answer: frames.slice(before) };
}

async function say({ text, until }) {
    const answer = until === null ? null : asked.answer(until, ANSWER_SECONDS);
    sendAround(text);
    return { answer: await answer };
}

async function obey(command) {
    switch (command.do) {
        case 'counts':
            return { answer: { ...counts, connected: session !== null } };
        case 'wait':
            return waitFor(command);
        case 'frames':
            return { answer: frames };
        case 'transcript':
            return { answer: transcript(frames, sent) };
        case 'endings':
            return { answer: endings };
        case 'boot':
            boot = { status: command.status, interval: command.interval };
            return { answer: {} };
        case 'password':
            password = Buffer.from(command.hex, 'hex');
            return { answer: {} };
    }
    if (session === null) return { failed: 'the charge point is not connected' };
    switch (command.do) {
        case 'change':
            return call('ChangeConfiguration', { key: command.key, value: command.value });
        case 'get':
            return call('GetConfiguration', command.keys?.length ? { key: command.keys } : {});
        case 'call':
            return call(command.action, camelCase(command.payload));
        case 'raw':
            return sendRaw(command);
        case 'say':
            return say(command);
        case 'subprotocol':
            return { answer: session.client.protocol };
        case 'drop':
            await session.client.close({ code: command.code ?? 1000, reason: command.reason ?? '' });
            return { answer: {} };
    }
    return { failed: `unknown command ${command.do}` };
}

const read = (file) => (file === undefined ? undefined : readFileSync(file));
const http = options.certificate
    ? createHttpsServer({
        cert: read(options.certificate),
        key: read(options.key),
        ca: read(options['client-ca']),
        requestCert: options['client-ca'] !== undefined,
        rejectUnauthorized: options['client-ca'] !== undefined,
    })
    : createHttpServer();
http.on('upgrade', server.handleUpgrade);
http.listen(Number(options.port), '127.0.0.1');
await once(http, 'listening');
tell({ port: http.address().port });

for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        answer = await obey(JSON.parse(line));
    } catch (error) {
        // Reported to the test, which knows what to make of it.
        answer = { failed: String(error) };
    }
    tell(answer);
}
process.exit(0);
