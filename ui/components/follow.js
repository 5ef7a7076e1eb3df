// Brings what a page shows up to date without a rerun of its script. Python's half is follow.py.

const followers = (window.ninFollowers ??= new Map()); // key -> follower; outlives remounts
const PATIENCE = 10_000; // milliseconds for an answer
const RETRY = 2000; // after one that did not come
const NOTICE = 8; // seconds until a page asks, between two pictures, whether it is out of date
const TOLD_AGAIN = 5000; // where news was told and the page has not been drawn anew

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  // A page shows one run: whoever followed another one is done, even if its node stays for a moment.
  for (const [key, other] of followers) if (key !== data.key) end(other);
  let follower = followers.get(data.key);
  if (!follower || follower.ended) {
    follower = { failures: 0, told: null, toldAt: 0 };
    followers.set(data.key, follower);
  }
  if (follower.data !== data) {
    follower.data = data;
    follower.serial = data.serial;
    follower.wake?.(); // the pause was that of what was there before
  }
  follower.node = parentElement;
  follower.tell = (news) => setTriggerValue("news", news);
  if (!follower.runs) run(follower, data.key);
  return () => whenGone(parentElement, () => follower.node === parentElement && end(follower));
}

function end(follower) {
  follower.ended = true;
  follower.wake?.();
}

async function run(follower, key) {
  follower.runs = true;
  const seen = () => document.hidden || follower.wake?.();
  document.addEventListener("visibilitychange", seen);
  while (!follower.ended) {
    // Nobody looks at a hidden page; it is brought up to date when it is shown.
    let left = document.hidden ? 3600 : await once(follower);
    for (; left > 0 && !follower.ended; left -= NOTICE) {
      if (await woken(follower, Math.min(left, NOTICE))) break;
      // What comes while it is asked wakes nobody.
      if (left > NOTICE && !document.hidden && (await glance(follower))) break;
    }
  }
  document.removeEventListener("visibilitychange", seen);
  if (followers.get(key) === follower) followers.delete(key);
}

/** Wait so many seconds; whether something ended that. */
function woken(follower, seconds) {
  return new Promise((resolve) => {
    follower.wake = () => resolve(true);
    setTimeout(() => resolve(false), 1000 * seconds);
  });
}

/**
 * Ask only whether the page is out of date: a picture costs many times as much.
 * Returns whether it has been drawn anew meanwhile.
 */
async function glance(follower) {
  const { data } = follower;
  const version = await versionAt(`${data.url}&only=version`);
  if (follower.ended || follower.data !== data) return true;
  if (version !== null && version !== data.version) tell(follower, version);
  return false;
}

/** Ask and show what comes; returns the seconds until the next time. */
async function once(follower) {
  const { data } = follower;
  let answer;
  try {
    const since = encodeURIComponent(follower.serial);
    const response = await fetch(`${data.url}&since=${since}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (!response.ok) throw new Error(`${response.status}`);
    answer = await response.json();
    follower.failures = 0;
  } catch (error) {
    follower.failures += 1;
    // Where the feed cannot be reached at all, the script draws the page, if less often.
    if (follower.failures > 1) tell(follower, `lost ${follower.failures}`);
    return RETRY / 1000;
  }
  // The page has been drawn anew, or shows something else: this may be older.
  if (follower.ended || follower.data !== data) return 0;
  follower.serial = answer.serial;
  if (answer.chart) window.ninPlots?.get(answer.chart.key)?.show(answer.chart);
  for (const html of answer.html ?? []) patch(html);
  if (answer.version !== data.version) {
    // After what is new has been painted: a rerun keeps the browser busy.
    requestAnimationFrame(() => setTimeout(() => tell(follower, answer.version)));
  }
  return answer.pause;
}

function tell(follower, news) {
  const again = performance.now() - follower.toldAt > TOLD_AGAIN;
  if (follower.told === news + follower.data.version && !again) return;
  follower.told = news + follower.data.version;
  follower.toldAt = performance.now();
  follower.tell(news);
}

/**
 * Make the element on the page with the class of `html`'s the same, leaving alone what is.
 * One of another run is not touched: the page is about to show that one.
 */
function patch(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
  const old = document.querySelector(`.${fresh.classList[0]}`);
  if (old && old.dataset.run === fresh.dataset.run) become(old, fresh);
}

function become(old, fresh) {
  const alike = old.nodeName === fresh.nodeName &&
    old.childNodes.length === fresh.childNodes.length;
  if (!alike) return void old.replaceWith(document.importNode(fresh, true));
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  [...old.childNodes].forEach((child, number) => become(child, fresh.childNodes[number]));
}
