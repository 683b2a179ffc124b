// What differs between two texts, line by line.

const MOST_LINES = 600;

/**
 * The longest common subsequence; where that would take long, all is told anew.
 * @param {string} before @param {string} after
 * @returns {Array<{kind: 'same'|'gone'|'added', line: string}>}
 */
export function diff(before, after) {
  const [a, b] = [before.split('\n'), after.split('\n')];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const same = (lines) => lines.map((line) => ({ kind: 'same', line }));
  const middle = changed(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  return [...same(a.slice(0, head)), ...middle, ...same(a.slice(a.length - tail))];
}

function changed(a, b) {
  const all = (kind, lines) => lines.map((line) => ({ kind, line }));
  if (!a.length || !b.length || a.length > MOST_LINES || b.length > MOST_LINES) return [...all('gone', a), ...all('added', b)];
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] = a[i] === b[j]
        ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) {
      found.push({ kind: 'same', line: a[i] });
      i += 1;
      j += 1;
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) {
      found.push({ kind: 'gone', line: a[i] });
      i += 1;
    } else {
      found.push({ kind: 'added', line: b[j] });
      j += 1;
    }
  }
  return [...found, ...all('gone', a.slice(i)), ...all('added', b.slice(j))];
}
