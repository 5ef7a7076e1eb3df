// Has a fragment's script run again and again, while somebody sees the page. Python's half: tick.py.

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
      clearTimeout(timer);
      due = performance.now() + 1000 * seconds;
      timer = setTimeout(ring, 1000 * seconds);
    },
    end() {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
      if (tickers.get(key) === ticker) tickers.delete(key);
    },
  };
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
