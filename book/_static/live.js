// The loader: starts the live figures of a page, without a kernel and without the network.
//
// A figure is <div class="mbta-figure" data-module="…"> with its still picture and its state as
// JSON. Modules and weights are classic scripts that hand over a text, so that they also load from
// file://, where a browser refuses modules. A figure starts when it comes near the window. If
// anything fails, the picture stays, and a note says why.
(() => {
  const folder = document.currentScript.src.replace(/[^/]*$/, "") + "live/";
  const texts = {}; // what the scripts handed over, by name
  window.mbtaLive = {
    give(name, text, check) {
      if (adler32(text) === check) texts[name] = text; // else it has been damaged on the way
    },
  };

  /** The checksum Adler-32 of a text in UTF-8. */
  function adler32(text) {
    let [one, two] = [1, 0];
    for (const byte of new TextEncoder().encode(text)) {
      one = (one + byte) % 65521;
      two = (two + one) % 65521;
    }
    return two * 65536 + one;
  }

  const fetching = {};
  /** The text that live/<name>.js hands over; each file is loaded once. */
  function text(name) {
    fetching[name] ??= new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = `${folder}${name}.js`;
      script.onload = () => (name in texts ? done(texts[name]) : fail(Error(`${name} is damaged`)));
      script.onerror = () => fail(Error(`${name} could not be loaded`));
      document.head.append(script);
    });
    return fetching[name];
  }

  /** Bytes in base64 as a DataView, as a kernel sends them. */
  function view(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new DataView(bytes.buffer);
  }

  const modules = {};
  /** The module of that name; figures of one kind share it. */
  function load(name) {
    modules[name] ??= text(name).then((source) => {
      const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      return import(url).finally(() => URL.revokeObjectURL(url));
    });
    return modules[name];
  }

  /** A model with the interface that anywidget gives, without a kernel behind it. */
  function modelOf(state) {
    // Weights come when they are asked for: awaiting the entry loads the file.
    for (const name of Object.keys(state.weights ?? {})) {
      state.weights[name] = { then: (done, fail) => text(name).then(view).then(done, fail) };
    }
    const listeners = {};
    return {
      get: (name) => state[name],
      set(name, value) {
        if (Object.is(state[name], value)) return;
        state[name] = value;
        for (const call of listeners[`change:${name}`] ?? []) call();
      },
      save_changes() {},
      on: (event, call) => (listeners[event] ??= []).push(call),
      off: (event, call) =>
        (listeners[event] = (listeners[event] ?? []).filter((other) => other !== call)),
    };
  }

  /** Put the still picture back, and say why. */
  function giveUp(figure, el, error) {
    el.remove();
    figure.classList.remove("running");
    const note = document.createElement("p");
    note.className = "mbta-note";
    note.textContent = `This figure is a still picture here: ${error.message}.`;
    figure.append(note);
  }

  async function start(figure) {
    const el = document.createElement("div");
    el.addEventListener("mbta-failed", ({ detail }) => giveUp(figure, el, detail));
    try {
      const state = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
      const module = await load(figure.dataset.module);
      figure.append(el);
      await module.default.render({ model: modelOf(state), el });
      if (el.isConnected) figure.classList.add("running"); // else it has given up
    } catch (error) {
      giveUp(figure, el, error);
    }
  }

  const figures = document.querySelectorAll(".mbta-figure");
  if (!("IntersectionObserver" in window)) return figures.forEach(start);
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        watch.unobserve(target);
        start(target);
      }
    },
    { rootMargin: "600px" },
  );
  figures.forEach((figure) => watch.observe(figure));
})();
