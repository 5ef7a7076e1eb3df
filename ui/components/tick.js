// Has a fragment's script run again and again, while somebody sees the page. Python's half: tick.py.

const NOTICE = 8; // seconds after which it is asked, if there is whom to ask, whether to wait longer
const tickers = (window.ninTickers ??= new Map()); // key -> ticker; outlives remounts

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  let ticker = tickers.get(data.key);
  if (!ticker) tickers.set(data.key, (ticker = begin(data.key)));
  ticker.node = parentElement;
  ticker.tell = () => setTriggerValue("tick", ++ticker.count);
  if (ticker.data !== data) ticker.wait((ticker.data = data).seconds);
  return () => whenGone(parentElement, () => ticker.node === parentElement && ticker.end());
}

function begin(key) {
  let timer, due;
  const ticker = {
    count: 0,
    wait(seconds) {
      due = performance.now() + 1000 * seconds;
      next();
    },
    end() {
      clearTimeout(timer);
      due = null;
      document.removeEventListener("visibilitychange", shown);
      if (tickers.get(key) === ticker) tickers.delete(key);
    },
  };
  function next() {
    clearTimeout(timer);
    const left = due - performance.now();
    timer = left > 1000 * NOTICE ? setTimeout(glance, 1000 * NOTICE) : setTimeout(ring, left);
  }
  async function glance() {
    const { watch } = ticker.data, asked = due;
    if (!watch || document.hidden) return next();
    const version = await versionAt(watch.url);
    if (due !== asked) return; // another drawing has come meanwhile, or none will
    if (version !== null && version !== watch.version) ring();
    else next();
  }
  function ring() {
    if (document.hidden) return; // it catches up when it is shown
    if (!ticker.node.isConnected) return ticker.wait(0.5); // gone, or about to be mounted again
    ticker.tell();
    ticker.wait(ticker.data.seconds); // should the script not answer
  }
  function shown() {
    if (!document.hidden && performance.now() >= due) ring();
  }
  document.addEventListener("visibilitychange", shown);
  return ticker;
}
