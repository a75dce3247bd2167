"""Words that say little of what a text is about, English and Chinese: key phrases do not begin or end with one, and
sentences are not alike for sharing them."""

from __future__ import annotations

from functools import cache

import numpy as np

from bothways.input_side.lookup import WordSet
from bothways.input_side.protection import NEGATORS
from bothways.text import IDEOGRAPH, Bools, Ints, TextBatch

_ENGLISH = """
a about above across actually after again against ago all almost along already also although always am among an and
another any anybody anyone anything anyway anywhere apart are around as aside at away back be became because become
becomes been before being below beside besides between beyond both but by came can come comes could did do does doing
done down due during each either else enough especially etc even ever every everybody everyone everything everywhere
far few for from further gave get gets getting give gives go goes going gone got had has have having he hence her here
hers herself him himself his how however i if in indeed instead into is it its itself just keep keeps kept know known
last later least less let like likely made mainly make makes making many may maybe me mean meanwhile merely might mine
more moreover most mostly mr mrs ms much must my myself near nearly next now of off often oh ok on once one ones only
onto or other others otherwise ought our ours ourselves out over own per perhaps put quite rather re really said same
saw say says see seem seemed seems seen shall she should since so some somebody somehow someone something sometimes
somewhat somewhere soon still such take taken takes than that the their theirs them themselves then there therefore
these they thing things think this those though through throughout thus to together too took toward towards under
unless until up upon us use used using usually very via was way we well went were what whatever when whenever where
whether which while who whoever whole whom whose why will with within would yes yet you your yours yourself yourselves
's 're 've 'll 'd 'm 's s t d ll m ve re ca wo sha im ive id youre theyre thats whats lrb rrb amp quot br
"""
_CHINESE = """
的 了 着 过 地 得 之 是 有 在 和 与 及 或 而 且 但 但是 可是 不过 然而 而且 并 并且 或者 还是 还 也 又 再 都 就 才
只 只是 只有 只要 就是 就算 即使 虽然 虽 尽管 因为 因 由于 所以 因此 于是 如果 要是 假如 那么 那 那个 那些 那样 那里
那儿 这 这个 这些 这样 这么 这里 这儿 这种 这次 那种 那次 我 你 您 他 她 它 我们 你们 他们 她们 它们 咱 咱们 自己
大家 人家 别人 谁 什么 怎么 怎样 怎么样 为什么 哪 哪个 哪里 哪些 多少 几 个 些 点 一个 一些 一点 一种 一样 一直 一定
一下 一次 一般 每 每个 各 各种 某 某些 某个 其 其他 其它 其中 其实 此 此外 该 本 以 以及 以后 以前 以上 以下 于 对
对于 关于 至于 从 自 由 向 往 到 给 把 被 让 使 用 为 为了 跟 同 比 比较 按 按照 根据 通过 随着 当 当然 时 时候 时间
之后 之前 之间 里 里面 上 上面 下 下面 中 外 内 前 后 很 太 更 最 非常 十分 特别 相当 真 真是 真的 挺 蛮 好 多 少 大
小 可 可以 能 能够 会 要 想 应该 应 需要 得到 觉得 感觉 认为 知道 看 看到 说 说是 听 来 去 起来 出来 下来 上来 过来
过去 进行 成为 作为 等 等等 啊 呀 吧 呢 吗 嘛 哦 噢 哈 哈哈 嗯 唉 哎 啦 哇 呵呵 所 所有 所谓 已 已经 曾 曾经 正 正在
将 将要 刚 刚刚 马上 仍 仍然 却 便 则 若 倒 反而 甚至 几乎 大概 可能 也许 似乎 好像 毕竟 究竟 到底 总 总是 总之 经常
常常 往往 有时 有些 有的 有点 还有 没有 不是 不会 不能 不要 不用 不过 不但 不仅 无 没 不 别 未 非 年 月 日 天 次 件
本书 东西 事 事情 方面 问题 部分
"""
_SHORT_FORMS = (
    ("i you he she it we they that this there here what who where when how", "'s 're 've 'll 'd 'm"),
    ("do does did is are was were has have had could should would wo ca must might need ai let", "n't 's"),
)


@cache
def _words(language: str) -> WordSet:
    listed = _CHINESE.split() if language == "zh" else []
    short = [w + end for words, ends in _SHORT_FORMS for w in words.split() for end in ends.split()]
    return WordSet.of(sorted({*_ENGLISH.split(), *NEGATORS, *short, *(w.replace("'", "’") for w in short), *listed}))


def says_little(batch: TextBatch, tokens: Ints, language: str) -> Bools:
    """Which of `tokens`, all of them words, are stop words, numbers, or single Latin letters."""
    codes, lengths = batch.words(tokens)
    if not tokens.size:
        return np.zeros(0, dtype=bool)
    starts = np.cumsum(lengths) - lengths
    numeric = np.logical_or.reduceat((codes >= ord("0")) & (codes <= ord("9")), starts)
    short = (lengths == 1) & (batch.kinds[tokens] != IDEOGRAPH)
    return np.asarray(_words(language).holds(codes, lengths) | numeric | short)
