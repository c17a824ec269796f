"""Where methods are found."""

from datasets.registry import Entry, Registry
from methods.base import Method

METHODS = Registry(
    noun="method",
    base=Method,  # type: ignore[type-abstract]
    group="robult_bench.methods",
    builtin={
        "robult": Entry("methods.robult:Robult", "soft positive-unlabelled contrast, unique and shared latents"),
        "gmc": Entry("methods.gmc:GMC", "geometric multimodal contrast of each modality with the joint embedding"),
        "actionmae": Entry("methods.actionmae:ActionMAE", "masked autoencoder that restores dropped modality tokens"),
        "prompt_trans": Entry("methods.prompt_trans:PromptTrans", "prompts that tell a transformer what is missing"),
        "prompt_vilt": Entry("methods.prompt_vilt:PromptViLT", "those prompts on a frozen pretrained ViLT"),
        "raml": Entry("methods.raml:RAML", "Gaussian embeddings fused by their precision"),
        "concat": Entry("methods.concat:Concat", "embeddings side by side, trained on complete samples only"),
        "augmentation": Entry("methods.augmentation:Augmentation", "embeddings side by side, all missing patterns"),
        "cra": Entry("methods.cra:CRA", "a chain of residual autoencoders restores missing embeddings"),
        "mmin": Entry("methods.mmin:MMIN", "imagines what a full-modality teacher would see, and decides on the way"),
        "tate": Entry("methods.tate:TATE", "a transformer told by tags what is missing, drawn to a full-data teacher"),
        "tmc": Entry("methods.tmc:TMC", "evidence of every modality, fused by how sure each opinion is"),
        "etmc": Entry("methods.etmc:ETMC", "TMC with the concatenated features as one more view"),
        "md": Entry("methods.md:MD", "feature gates, and modalities scaled by their estimated confidence"),
        "mvae": Entry("methods.mvae:MVAE", "variational autoencoder, the posterior a product of Gaussian experts"),
        "mmvae": Entry("methods.mmvae:MMVAE", "variational autoencoder, the posterior a mixture of Gaussian experts"),
        "dicmor": Entry("methods.dicmor:DiCMoR", "flows into one latent space recover what is missing"),
        "sem": Entry("methods.sem:SEM", "contrast of modality pairs, weighted by how much they agree"),
        "unimodal": Entry("methods.unimodal:Unimodal", "a supervised network per modality, another for the full set"),
        "constant": Entry("methods.constant:Constant", "majority class or median: what no information gives"),
    },
)
