"""How each thing looks, in its own coordinates: x from its middle, y up from its foot, height 1."""

import math

from .pen import Pen, arc

CREAM, DARK, WOOD = (250, 240, 220), (48, 46, 58), (140, 98, 62)
GLASS, STEEL, LEAF = (196, 228, 246), (186, 194, 206), (74, 150, 70)
GOLD, BLUSH = (252, 206, 70), (250, 160, 160)


def cat(pen: Pen) -> None:
    pen.stroke([(-.34, .1), (-.5, .3), (-.44, .52), (-.38, .58)], .09)
    pen.oval(-.06, .26, .42, .25)
    pen.stroke([(-.24, .14), (-.24, .05)], .1)
    pen.stroke([(.22, .14), (.22, .05)], .1)
    for side in (-1, 1):
        x = .2 + side * .17
        pen.polygon([(x - .1, .74), (x + side * .06, .99), (x + .1, .72)])
        pen.polygon([(x - .04, .77), (x + side * .045, .92), (x + .05, .77)], BLUSH, line=False)
    pen.oval(.2, .58, .31, .26)
    pen.eye(.1, .61, .06)
    pen.eye(.31, .61, .06)
    pen.polygon([(.17, .54), (.24, .54), (.205, .5)], (230, 110, 120), line=False)
    for side in (-1, 1):
        pen.stroke([(.205 + side * .14, .5), (.205 + side * .3, .53)], .014, DARK, line=False)


def fish(pen: Pen) -> None:
    pen.polygon([(-.34, .5), (-.72, .92), (-.64, .5), (-.72, .1)], "shade")
    pen.polygon([(-.14, .86), (.06, 1.), (.28, .84)], "shade")
    pen.oval(.1, .48, .6, .42)
    pen.oval(-.02, .4, .15, .13, "shade", start=150, stop=390)
    pen.eye(.42, .58, .1)
    pen.smile(.56, .42, .1)
    pen.oval(.36, .36, .06, .04, BLUSH, line=False)


def car(pen: Pen) -> None:
    pen.polygon([(-.56, .6), (-.36, .98), (.26, .98), (.54, .6)])
    pen.polygon([(-.44, .6), (-.3, .87), (-.06, .87), (-.06, .6)], GLASS)
    pen.polygon([(.02, .6), (.02, .87), (.22, .87), (.41, .6)], GLASS)
    pen.rect(-.93, .2, .93, .64, round_=.15)
    pen.oval(.84, .46, .07, .09, (255, 240, 170), line=False)
    pen.oval(-.86, .46, .05, .08, (240, 90, 80), line=False)
    for x in (-.52, .5):
        pen.oval(x, .2, .21, .2, DARK)
        pen.oval(x, .2, .1, .095, STEEL, line=False)


def boat(pen: Pen) -> None:
    pen.rect(-.03, .3, .03, 1., WOOD)
    pen.polygon([(.06, .4), (.06, .96), (.44, .4)], CREAM)
    pen.polygon([(-.06, .4), (-.06, .84), (-.34, .4)], "light")
    pen.polygon([(-.5, .3), (.5, .3), (.34, .01), (-.36, .01)])
    for x in (-.2, .02, .24):
        pen.oval(x, .17, .055, fill=CREAM, line=False)


def house(pen: Pen) -> None:
    pen.rect(.2, .68, .32, .97, "shade")
    pen.rect(-.4, 0, .4, .56)
    pen.polygon([(-.49, .54), (0, .98), (.49, .54)], "shade")
    pen.rect(-.08, 0, .12, .34, WOOD)
    pen.oval(.085, .16, .018, fill=GOLD, line=False)
    for x in (-.32, .2):
        pen.rect(x, .25, x + .15, .43, (255, 238, 160))
        pen.stroke([(x + .075, .26), (x + .075, .42)], .014, WOOD, line=False)
    pen.oval(0, .7, .075, fill=(255, 238, 160))


def tree(pen: Pen) -> None:
    pen.polygon([(-.09, 0), (.09, 0), (.06, .4), (-.06, .4)], WOOD)
    for x, y, r in ((-.2, .5, .18), (.2, .5, .18), (-.13, .72, .2), (.14, .72, .2)):
        pen.oval(x, y, r, r)
    pen.oval(0, .78, .22, .2)
    pen.oval(0, .58, .24, .22, line=False)
    for x, y in ((-.14, .6), (.1, .76), (.18, .52)):
        pen.oval(x, y, .05, .035, "light", line=False)


def flower(pen: Pen) -> None:
    pen.stroke([(0, .02), (.02, .3), (0, .6)], .05, LEAF)
    pen.oval(.13, .2, .13, .06, LEAF, angle=30)
    pen.oval(-.13, .28, .13, .06, LEAF, angle=150)
    for k in range(6):
        a = math.radians(60 * k + 30)
        pen.oval(.18 * math.cos(a), .7 + .18 * math.sin(a), .125, .105, angle=60 * k + 30)
    pen.oval(0, .7, .12, fill=GOLD)
    pen.oval(-.04, .72, .018, fill=DARK, line=False)
    pen.oval(.04, .72, .018, fill=DARK, line=False)
    pen.smile(0, .69, .045)


def mushroom(pen: Pen) -> None:
    pen.polygon(arc(0, .08, .19, .08, 180, 360) + [(.14, .52), (-.14, .52)], CREAM)
    pen.oval(0, .46, .46, .53, start=0, stop=180)
    for x, y, r in ((-.24, .6, .08), (.02, .78, .1), (.25, .58, .07)):
        pen.oval(x, y, r, r * .9, CREAM, line=False)
    pen.oval(-.065, .32, .026, .036, DARK, line=False)
    pen.oval(.065, .32, .026, .036, DARK, line=False)
    pen.smile(0, .26, .05)


def umbrella(pen: Pen) -> None:
    pen.stroke([(0, .95), (0, .1), (.03, .04), (.09, .03), (.13, .09)], .035, WOOD)
    pen.oval(0, .55, .47, .41, start=0, stop=180)
    for x in (-.31, 0, .31):
        pen.oval(x, .55, .157, .07, "shade", start=0, stop=180)
    pen.stroke([(0, .56), (0, .95)], .016, "shade", line=False)
    pen.oval(0, .97, .03, fill=WOOD, line=False)


def balloon(pen: Pen) -> None:
    for x in (-.1, .1):
        pen.stroke([(x, .18), (x * 2, .42)], .014, WOOD, line=False)
    pen.rect(-.13, .01, .13, .2, (186, 134, 80), round_=.03)
    pen.polygon(arc(0, .63, .36, .36, -38, 218) + [(-.12, .26), (.12, .26)])
    pen.polygon(arc(0, .63, .13, .36, -60, 240) + [(-.05, .27), (.05, .27)], "light")
    pen.rect(-.13, .24, .13, .29, "shade")


def bird(pen: Pen) -> None:
    pen.polygon([(-.3, .42), (-.64, .62), (-.6, .4), (-.66, .26)], "shade")
    pen.oval(-.02, .4, .42, .32)
    pen.oval(.3, .66, .24, .28)
    pen.polygon([(.5, .7), (.64, .6), (.48, .54)], (248, 164, 40))
    pen.eye(.36, .72, .075)
    pen.polygon([(-.24, .5), (.14, .52), (-.1, .98), (-.34, .9)], "shade")
    pen.oval(.06, .24, .2, .1, "light", line=False)
    for x in (-.06, .1):
        pen.stroke([(x, .1), (x, .03), (x + .07, .02)], .03, (248, 164, 40), line=False)


def star(pen: Pen) -> None:
    tips = []
    for k in range(10):
        a, r = math.radians(90 + 36 * k), .53 if k % 2 == 0 else .27
        tips.append((r * math.cos(a), .46 + r * math.sin(a)))
    pen.polygon(tips)
    pen.eye(-.1, .5, .055)
    pen.eye(.1, .5, .055)
    pen.smile(0, .42, .08)
    for x in (-.17, .17):
        pen.oval(x, .41, .035, .025, BLUSH, line=False)


def rocket(pen: Pen) -> None:
    pen.polygon([(-.1, .16), (-.05, .06), (0, 0), (.05, .06), (.1, .16)], (252, 170, 50))
    for side in (-1, 1):
        pen.polygon([(side * .14, .46), (side * .31, .14), (side * .13, .18)], "shade")
    pen.polygon([(-.13, .16), (.13, .16)] + arc(0, .5, .2, .5, -25, 205))
    pen.polygon(arc(0, .5, .2, .5, 37, 143), "shade")
    pen.oval(0, .56, .105, .11, STEEL)
    pen.oval(0, .56, .075, .08, GLASS, line=False)
    pen.rect(-.12, .15, .12, .23, "shade")


def snail(pen: Pen) -> None:
    skin = (238, 206, 156)
    pen.stroke([(.52, .5), (.48, .84)], .05, skin)
    pen.stroke([(.62, .5), (.66, .86)], .05, skin)
    pen.polygon([(-.72, .02), (.54, .02)] + arc(.54, .36, .17, .26, -60, 150)
                + [(.36, .2), (-.4, .16)], skin)
    pen.oval(-.1, .52, .42, .4)
    pen.oval(-.08, .5, .27, .26, "shade")
    pen.oval(-.06, .48, .13, .12)
    pen.eye(.48, .9, .075)
    pen.eye(.66, .92, .075)
    pen.smile(.6, .34, .08)


def kite(pen: Pen) -> None:
    pen.stroke([(0, .34), (.07, .24), (-.03, .15), (.07, .06), (.03, .02)], .022, DARK, line=False)
    pen.polygon([(0, .99), (.37, .66), (0, .32), (-.37, .66)])
    pen.polygon([(0, .99), (.37, .66), (0, .66)], "light")
    pen.polygon([(0, .32), (-.37, .66), (0, .66)], "light")
    for y in (.21, .08):
        pen.polygon([(.02, y), (-.08, y + .05), (-.08, y - .05)], "shade")
        pen.polygon([(.02, y), (.12, y + .05), (.12, y - .05)], "shade")
