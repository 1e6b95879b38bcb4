// Has the person's authenticator answer the gateway's challenge, and sends what it says by the page's form.
"use strict";

const form = document.getElementById("key");
const button = form.querySelector("button");
const said = document.getElementById("said");

function bytes(text) {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(binary, (c) => c.charCodeAt(0));
}

function text(buffer) {
  let binary = "";
  for (const b of new Uint8Array(buffer)) binary += String.fromCharCode(b);
  return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

async function ask() {
  const options = JSON.parse(form.dataset.options);
  options.challenge = bytes(options.challenge);
  const key = await navigator.credentials.get({ publicKey: options });
  return JSON.stringify({
    id: key.id,
    rawId: text(key.rawId),
    type: key.type,
    clientExtensionResults: {},
    response: {
      authenticatorData: text(key.response.authenticatorData),
      clientDataJSON: text(key.response.clientDataJSON),
      signature: text(key.response.signature),
      userHandle: key.response.userHandle ? text(key.response.userHandle) : undefined,
    },
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  said.textContent = "";
  try {
    form.elements.answer.value = await ask();
    form.submit();
  } catch (error) {
    said.textContent = `Your browser has no answer from a key of yours (${error.name}). Try again, or with another key.`;
    button.disabled = false;
  }
});

if (window.PublicKeyCredential) button.disabled = false;
else said.textContent = "This browser can't use keys.";
