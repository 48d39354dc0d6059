"""Cross-attention over a grid of tokens as one kernel: sums of exp(logit - max), and gradients.

With separable positions (see `cross`) token j = (o, x) of a query's row has the logit

    l_j = r_j (a . content_j + rows[o] + inner[x])

and the encoder needs sums of its weights: alone, times r content, times r by row and by place. Here
no weight leaves fast memory (as in FlashAttention, Dao et al. 2022).

On a TPU tokens are on lanes. All of a logit but `inner` and r is one product, left times right
(`tiling`): a matrix unit is 128 deep, so the rows cost nothing beside the content. The sums by
content and by row are the weights times the transpose of right; those by place are additions. The
gradient of a weight is such a logit, of the gradients of the sums, and the gradient of left such a
sum, so the backward pass has the same form.

In half precision the matrix unit multiplies bfloat16 numbers. Logits still are exact to float32 in
the rows and places, as three bfloat16 parts hold a float32 number. For the sums by content and by
row a weight has two parts where there is little content, else it is rounded.

Shapes: B examples, N rows of weights (all heads), c channels; a grid of O rows of X tokens.

`sums` has the function and its gradient. `tpu` lays out arrays and calls what runs on the chip,
`blocks`; `gpu` is all of it for a GPU. These import Pallas, which takes long. `tiling` has the
layouts, `arithmetic` what both kernels compute with.
"""
