// The terminal player on a session's page: made from what the page says, and made anew where the speed changes, because
// the player takes that only at its beginning.
"use strict";

const place = document.getElementById("player");
if (place && place.dataset.cast && window.AsciinemaPlayer) {
  const speed = document.getElementById("speed");
  const skip = document.getElementById("skip");
  let player;

  async function make(start, play) {
    if (player) player.dispose();
    const segmented = "segmented" in place.dataset; // a large recording comes in pieces, each with a picture to begin with
    const source = segmented ? { driver: "recording", format: "segmented", url: place.dataset.cast } : place.dataset.cast;
    player = AsciinemaPlayer.create(source, place, {
      fit: "width", preload: true, controls: true, theme: "asciinema", startAt: start, autoPlay: play,
      speed: Number(speed.value), idleTimeLimit: skip.checked && !segmented ? 2 : undefined, poster: start > 0 ? `npt:${start}` : undefined,
    });
    place.dataset.ready = "made";
    player.addEventListener("playing", () => { place.dataset.ready = "playing"; });
    player.addEventListener("ended", () => { place.dataset.ready = "ended"; });
  }

  async function again() {
    const at = player ? await player.getCurrentTime() : 0;
    make(at, true);
  }

  speed.addEventListener("change", again);
  skip.addEventListener("change", again);
  for (const link of document.querySelectorAll("[data-seek]")) {
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      await player.seek(Math.max(0, Number(link.dataset.seek) - 0.5));
      player.play();
      place.scrollIntoView({ block: "center" });
    });
  }
  make(Number(place.dataset.start || 0), "start" in place.dataset); // where a search led here, it plays at once
}
