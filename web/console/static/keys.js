// Has an authenticator make a key by the gateway's options, and sends what it says by the page's form.
"use strict";

{
  const form = document.getElementById("newkey");
  const button = form.querySelector("button");
  const said = document.getElementById("said");

  const bytes = (text) => {
    const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(binary, (c) => c.charCodeAt(0));
  };
  const text = (buffer) => {
    let binary = "";
    for (const b of new Uint8Array(buffer)) binary += String.fromCharCode(b);
    return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };

  const make = async () => {
    const options = JSON.parse(form.dataset.options);
    options.challenge = bytes(options.challenge);
    options.user.id = bytes(options.user.id);
    for (const other of options.excludeCredentials || []) other.id = bytes(other.id);
    const key = await navigator.credentials.create({ publicKey: options });
    return JSON.stringify({
      id: key.id,
      rawId: text(key.rawId),
      type: key.type,
      clientExtensionResults: {},
      response: { attestationObject: text(key.response.attestationObject), clientDataJSON: text(key.response.clientDataJSON) },
    });
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    said.textContent = "";
    try {
      form.elements.answer.value = await make();
      form.submit();
    } catch (error) {
      said.textContent = error.name === "InvalidStateError" ? "You have enrolled this one already." : `No key was made (${error.name}). Try again, or with another.`;
      button.disabled = false;
    }
  });

  if (window.PublicKeyCredential) button.disabled = false;
  else said.textContent = "This browser can't make keys.";
}
