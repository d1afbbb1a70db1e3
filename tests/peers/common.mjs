// What the peers written in JavaScript share.

import { createHash } from 'node:crypto';

// The commands speak Python's snake case.
const renamed = (value, rename) => {
    if (Array.isArray(value)) return value.map((item) => renamed(item, rename));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [rename(key), renamed(item, rename)]));
};
export const snakeCase = (value) =>
    renamed(value, (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
export const camelCase = (value) =>
    renamed(value, (key) => key.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase()));

export const parsed = (text) => {
    try {
        return JSON.parse(text);
    } catch {
        return undefined;
    }
};

// A line for a text, as transcript.py writes it.
const line = (text) => {
    const raw = Buffer.from(text);
    let [kind, id, action] = [null, '', ''];
    const frame = parsed(text);
    if (Array.isArray(frame) && frame.length >= 2) {
        if (Number.isInteger(frame[0])) kind = frame[0];
        if (typeof frame[1] === 'string') id = frame[1];
        if (kind === 2 && typeof frame[2] === 'string') action = frame[2];
    }
    return { kind, id, action, bytes: raw.length, sha256: createHash('sha256').update(raw).digest('hex') };
};

export const transcript = (received, sent) => ({ received: received.map(line), sent: sent.map(line) });

// Who waits for the answer to a CALL that was sent as a text.
export class Asked {
    #waiting = new Map();

    // The answer to the CALL `id`, once it has come; the text is sent meanwhile.
    answer(id, seconds) {
        return new Promise((resolve, reject) => {
            const timer = setTimeout(() => reject(new Error('no answer in time')), seconds * 1000);
            this.#waiting.set(id, (frame) => {
                clearTimeout(timer);
                resolve(frame);
            });
        });
    }

    heard(text) {
        const frame = parsed(text);
        if (!Array.isArray(frame) || (frame[0] !== 3 && frame[0] !== 4)) return;
        this.#waiting.get(frame[1])?.(frame);
        this.#waiting.delete(frame[1]);
    }
}
