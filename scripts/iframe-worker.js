// Browsers start no worker for a page that was opened from a folder (file:). There the site's search runs in a frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #inside;
    #isLoaded;
    #hasAnswered;

    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.#inside = frame.contentWindow;
      const script = frame.contentDocument.createElement("script");
      script.src = address;
      this.#isLoaded = new Promise((loaded) => script.addEventListener("load", loaded));
      this.#hasAnswered = new Promise((answered) => {
        // what the script says is for us
        this.#inside.postMessage = (data) => {
          answered();
          this.dispatchEvent(new MessageEvent("message", { data }));
        };
      });
      frame.contentDocument.body.append(script);
    }

    // From a folder the index comes when somebody begins to type. Who is quicker waits for it: what is asked before
    // its answer, Material would take for a word that is nowhere.
    async postMessage(data) {
      await (data.type === 0 ? this.#isLoaded : this.#hasAnswered);
      this.#inside.dispatchEvent(new MessageEvent("message", { data }));
    }
  };
}
