// Generates and scores with stock libraries. Usage: node client.js ADDRESS PROTO_FOLDER MODEL PROMPT
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protoFolder, model, prompt] = process.argv.slice(2);
const files = ["generation", "scoring", "models"].map((name) => `charlm/v1/${name}.proto`);
const options = { includeDirs: [protoFolder], longs: String, enums: String, defaults: true };
const { v1 } = grpc.loadPackageDefinition(loader.loadSync(files, options)).charlm;
const credentials = grpc.credentials.createInsecure();

const generation = new v1.GenerationService(address, credentials);
const scoring = new v1.ScoringService(address, credentials);
const models = new v1.ModelService(address, credentials);

const unary = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, (error, response) => (error ? reject(error) : resolve(response))),
  );

const streamed = (request) =>
  new Promise((resolve, reject) => {
    const messages = [];
    const call = generation.StreamGenerate(request);
    call.on("data", (message) => messages.push(message));
    call.on("error", reject);
    call.on("end", () => resolve(messages));
  });

async function main() {
  const request = {
    model,
    context: { text: prompt },
    sampling: { seed: "18446744073709551615" },
    stopping: { maxNewTokens: 50 },
  };
  const whole = await unary(generation, "Generate", request);
  const messages = await streamed({ generate: request });
  const chunks = messages.flatMap((message) => message.chunks);
  const text = chunks.map((chunk) => chunk.text).join("");
  const score = await unary(scoring, "Score", {
    model,
    items: [{ context: { text: prompt }, text }],
  });
  const refused = await unary(generation, "Generate", { ...request, model: "models/none" }).catch(
    (error) => error.code,
  );
  const listed = await unary(models, "ListModels", {});
  console.log(
    JSON.stringify({
      generated: whole.outputs[0].text,
      streamed: text,
      logprobs: chunks.flatMap((chunk) => chunk.tokens.logprobs),
      scored: score.scores[0].tokens.logprobs,
      seed: messages[0].header.seed,
      finishReason: chunks.at(-1).end.finishReason,
      refused,
      models: listed.models.map((each) => each.name),
    }),
  );
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
