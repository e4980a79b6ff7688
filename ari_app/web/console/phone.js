// The console's telephone: SIP.js over the page's own server, sound straight to Asterisk (WebRTC).

const button = document.getElementById("phone");
const ear = document.getElementById("ear");
const notice = document.getElementById("notice");
let agent = null;
let call = null;

function say(text) {
  button.textContent = text;
  button.classList.toggle("stop", call !== null);
}

function complain(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function library() {
  return new Promise((resolve, reject) => {
    if (window.SIP) return resolve(window.SIP);
    const script = document.createElement("script");
    script.src = "/sip.js";
    script.onload = () => resolve(window.SIP);
    script.onerror = () => reject(new Error("its library can't be loaded"));
    document.head.append(script);
  });
}

async function start(account) {
  const SIP = await library();
  const socket = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/phone/sip`;
  agent = new SIP.UserAgent({
    uri: SIP.UserAgent.makeURI(`sip:${account.user}@console.invalid`),
    authorizationUsername: account.user,
    authorizationPassword: account.password,
    transportOptions: { server: socket, connectionTimeout: 5 },
    logLevel: "error",
    sessionDescriptionHandlerFactoryOptions: {
      iceGatheringTimeout: 500,
      peerConnectionConfiguration: { iceServers: [] },
    },
  });
  await agent.start();
  call = new SIP.Inviter(agent, SIP.UserAgent.makeURI(`sip:${account.extension}@console.invalid`), {
    sessionDescriptionHandlerOptions: { constraints: { audio: true, video: false } },
  });
  call.stateChange.addListener((state) => {
    if (state === SIP.SessionState.Established) {
      const receivers = call.sessionDescriptionHandler.peerConnection.getReceivers();
      ear.srcObject = new MediaStream(receivers.map((receiver) => receiver.track));
      say("Hang up");
    } else if (state === SIP.SessionState.Terminated) {
      end();
    }
  });
  await call.invite({
    requestDelegate: { onReject: (answer) => complain(`The call was refused: ${answer.message.reasonPhrase}.`) },
  });
}

async function end() {
  const [ended, used] = [call, agent];
  call = agent = null;
  ear.srcObject = null;
  say("Talk to the bot");
  if (ended && window.SIP) {
    const state = ended.state;
    if (state === window.SIP.SessionState.Established) await ended.bye().catch(() => {});
    else if (state === window.SIP.SessionState.Establishing) await ended.cancel().catch(() => {});
  }
  await used?.stop().catch(() => {});
}

const answer = await fetch("/phone");
const account = answer.ok ? await answer.json() : { user: null };
if (account.user) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    complain("");
    if (agent) return end();
    say("Calling …");
    try {
      await start(account);
    } catch (error) {
      complain(`The telephone does not work: ${error.message}`);
      await end();
    }
  });
}
