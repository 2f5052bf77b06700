// Talks to the daemon: reads its figures, and sends commands with the token if it wants one.

const TOKEN = "broadway token";

export async function read(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
}

// Returns whether this page may control the daemon: "open", "token" or "refused", and why.
export async function access() {
  const { control, why } = await read("api/access");
  return { control, why };
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

// Sends one command. Returns whether it was done, the sentence to show, and whether the token was refused.
export async function command(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (hasToken()) headers.Authorization = `Bearer ${sessionStorage.getItem(TOKEN)}`;
  try {
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" });
    const told = await answer.json();
    return { done: answer.ok, isTokenRefused: answer.status === 401, error: told.error ?? null, told };
  } catch {
    return { done: false, isTokenRefused: false, error: "The daemon does not answer. Look whether it was done, then try again.", told: {} };
  }
}
